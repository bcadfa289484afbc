import numpy as np
import pytest
from scipy import optimize

torch = pytest.importorskip("torch")

from xlatent.core import statistics  # noqa: E402
from xlatent.model import losses  # noqa: E402


def test_deviance_is_cstat():
    rng = np.random.default_rng(0)
    counts, mean = rng.poisson(3.0, (4, 50)).astype(float), rng.gamma(3.0, 1.0, (4, 50))
    found = losses.expected_deviance(torch.as_tensor(counts), torch.as_tensor(mean)).numpy()
    np.testing.assert_allclose(found, statistics.cstat(counts, mean).sum(axis=1), rtol=1e-10)


def test_no_gradient_is_lost_in_empty_bins():
    mean = torch.full((1, 3), 2.0, requires_grad=True)
    losses.expected_deviance(torch.tensor([[0.0, 1.0, 5.0]]), mean).sum().backward()
    # d/dm 2 (m - n ln m) = 2 (1 - n/m)
    torch.testing.assert_close(mean.grad, torch.tensor([[2.0, 1.0, -3.0]]))


@pytest.mark.parametrize("background", [0.0, 0.5, 20.0])
def test_the_amplitude_is_the_most_likely_one(background):
    rng = np.random.default_rng(1)
    shape = rng.gamma(2.0, 1.0, (1, 60))
    counts = rng.poisson(7.0 * shape + background).astype(float)
    found = losses.profiled_amplitude(
        torch.as_tensor(counts), torch.as_tensor(shape), torch.full((1, 60), background + 1e-9, dtype=torch.float64)
    )

    def deviance(log_a):
        return statistics.cstat(counts, np.exp(log_a) * shape + background + 1e-9).sum()

    wanted = np.exp(optimize.minimize_scalar(deviance, bounds=(-3, 5), method="bounded").x)
    assert float(found) == pytest.approx(wanted, rel=1e-3)


def test_divergence_against_monte_carlo():
    torch.manual_seed(0)
    mean = torch.randn(1, 8, dtype=torch.float64)
    factor = torch.tril(0.3 * torch.randn(1, 8, 8, dtype=torch.float64))
    factor = factor - torch.diag_embed(torch.diagonal(factor, dim1=1, dim2=2)) + 0.5 * torch.eye(8)
    whole = losses.divergence(mean, factor)
    q = torch.distributions.MultivariateNormal(mean, scale_tril=factor)
    p = torch.distributions.MultivariateNormal(torch.zeros(1, 8).double(), torch.eye(8).double())
    wanted = torch.distributions.kl_divergence(q, p)
    torch.testing.assert_close(whole, wanted)


def test_collapse_sees_through_rotations():
    torch.manual_seed(1)
    filled = torch.randn(4000, 8)
    one_missing = filled.clone()
    one_missing[:, 7] = 0.0
    # One direction of work spread over two axes: every axis varies, the determinant does not care.
    turned = torch.linalg.qr(torch.randn(8, 8))[0]
    assert abs(float(losses.aggregate_posterior_kl(filled))) < 0.1
    assert float(losses.aggregate_posterior_kl(one_missing)) > 1.5
    torch.testing.assert_close(
        losses.aggregate_posterior_kl(one_missing @ turned),
        losses.aggregate_posterior_kl(one_missing),
        rtol=1e-3,
        atol=1e-3,
    )


def test_pairs_that_agree_cost_nothing():
    mean, factor = torch.zeros(2, 3, 8), torch.eye(8).expand(2, 3, 8, 8)
    assert torch.all(losses.pair_difference(mean, factor) == 0)
    moved = mean.clone()
    moved[0] += 1.0
    # Eight differences of one over summed variances of two.
    torch.testing.assert_close(losses.pair_difference(moved, factor), torch.full((3,), 4.0))
