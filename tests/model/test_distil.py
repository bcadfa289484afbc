"""The narrow decoder that ships in place of the trained one."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from xlatent.core.bundle import locate  # noqa: E402
from xlatent.core.grid import ModelGrid  # noqa: E402
from xlatent.infer.embed import load_model  # noqa: E402
from xlatent.infer.observation import encode, prepare  # noqa: E402
from xlatent.model import distil, export, train  # noqa: E402
from xlatent.model.autoencoder import Autoencoder  # noqa: E402
from xlatent.model.checkpoint import load  # noqa: E402
from xlatent.model.preset import Network, Preset, Training, load_preset  # noqa: E402
from xlatent.simulate.reference import reference_spectra  # noqa: E402

pytestmark = pytest.mark.slow

GRID = ModelGrid()


def trained_decoder(bundle, z):
    """What the decoder in a bundle's weights gives at latents of the bundle."""
    preset = Preset.model_validate(json.loads((bundle / "bundle.json").read_text())["preset"])
    model = Autoencoder(preset, GRID)
    load(model, load_file(bundle / "weights.safetensors"), bundle)
    with torch.no_grad():
        return model.decoder(torch.as_tensor(z, dtype=torch.float32) @ model.axes).numpy()


def difference(bundle, z):
    """Root mean square of ln(photons) between both decoders, by share of the photons."""
    wanted, found = trained_decoder(bundle, z), load_model(str(bundle), threads=1)._decoder.log_flux(z)
    share = np.exp(wanted) / np.exp(wanted).sum(axis=1, keepdims=True)
    return np.sqrt(np.sum(share * (found - wanted) ** 2, axis=1))


def test_the_shipped_decoder_stands_for_the_trained_one():
    bundle = locate("chandra-acis-8")
    model = load_model(str(bundle), threads=1)
    observations = [prepare(s, model.projector) for s in reference_spectra(model.grid, 512)[0]]
    z, _ = encode(model._encoder, observations, model.info.beta)
    # The trained decoder itself is 5 % off the truth in the median, and 2 % where it is best.
    assert np.median(difference(bundle, z)) < 0.015 and np.quantile(difference(bundle, z), 0.95) < 0.06


def test_it_learns_what_the_trained_one_gives(tmp_path, monkeypatch):
    network = Network(patch=16, width=16, layers=1, heads=2, decoder_width=32, decoder_blocks=1)
    update = {"network": network, "training": Training(batch=16, warmup_steps=5)}
    train.train(load_preset("response-aware").model_copy(update=update), tmp_path / "run", steps=60)
    bundle = export.export(tmp_path / "run", tmp_path / "bundle", name="tiny", training="sixty steps")
    monkeypatch.setattr(distil, "_SOURCES", 64)
    z = np.random.default_rng(3).standard_normal((256, 8))
    found, done = [], []
    for steps in (1, 600):
        distil.distil(bundle, steps, lambda *numbers: done.append(numbers))
        found.append(np.median(difference(bundle, z)))
    assert (1, 1) in done and done[-1] == (600, 600)
    assert found[1] < 0.1 * found[0]
    log_flux, slopes = load_model(str(bundle), threads=1)._decoder(z)
    # Its Jacobian is its own, in the frame of the bundle's latents.
    step = 1e-2
    ahead = load_model(str(bundle), threads=1)._decoder.log_flux(z + step * np.eye(8)[2])
    np.testing.assert_allclose((ahead - log_flux) / step, slopes[:, :, 2], atol=0.02)
