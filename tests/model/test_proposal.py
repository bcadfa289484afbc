"""Learning a proposal: the density that is trained is the one that is drawn from, and it finds what it is shown."""

import shutil

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from xlatent.core.bundle import DEFAULT_MODEL, locate
from xlatent.infer.embed import load_model
from xlatent.infer.proposal import PROPOSAL, TriangularMaps, n_coefficients
from xlatent.model import proposal
from xlatent.model.proposal_pairs import Pairs


def test_torch_and_numpy_agree():
    rng = np.random.default_rng(0)
    coefficients = 0.1 * rng.standard_normal((3, n_coefficients(9)))
    white = rng.standard_normal((3, 5, 9))
    found = proposal.log_density(*(torch.as_tensor(x, dtype=torch.float32) for x in (coefficients, white)))
    expected = [TriangularMaps(k, 9).log_density(some) for k, some in zip(coefficients, white, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_it_learns_what_the_context_says():
    # A banana whose bend, and a width, follow the context.
    rng = np.random.default_rng(1)
    context = rng.standard_normal((3000, 2))
    x = rng.standard_normal((3000, 4, 2))
    x[:, :, 1] = x[:, :, 1] * np.exp(0.3 * context[:, None, 1]) + 0.5 * context[:, None, 0] * x[:, :, 0] ** 2
    pairs = Pairs(context.astype(np.float32), x.astype(np.float32))
    network = proposal.train_proposal(pairs, epochs=30)
    with torch.no_grad():
        coefficients = network(torch.as_tensor(pairs.context))
        found = proposal.log_density(coefficients, torch.as_tensor(pairs.draws)).mean().item()
    perfect = -(1.0 + np.log(2.0 * np.pi)) - 0.3 * context[:, 1].mean()
    normal = -0.5 * (2.0 + np.log(np.linalg.det(np.cov(x.reshape(-1, 2).T)))) - np.log(2.0 * np.pi)
    assert normal < perfect - 0.3 and perfect - 0.15 < found < perfect + 0.05


@pytest.mark.slow
def test_a_bundle_gets_one(tmp_path):
    bundle = shutil.copytree(locate(DEFAULT_MODEL), tmp_path / "bundle")
    done = []
    proposal.add_proposal(bundle, 128, lambda now, whole: done.append((now, whole)))
    assert done == [(64, 128), (128, 128)]
    assert (bundle / PROPOSAL).stat().st_size < 1e6
    model = load_model(bundle, threads=1)
    assert model._proposal is not None and model.info.files[PROPOSAL]
    assert [i.name for i in model._proposal.get_inputs()] == ["context"]
    assert model._proposal.get_outputs()[0].shape[1] == n_coefficients(9)
