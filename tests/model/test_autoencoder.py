import numpy as np
import pytest

torch = pytest.importorskip("torch")

from xlatent.core.grid import ModelGrid  # noqa: E402
from xlatent.model.autoencoder import Autoencoder  # noqa: E402
from xlatent.model.export import example_inputs  # noqa: E402
from xlatent.model.preset import load_preset  # noqa: E402

GRID = ModelGrid()


@pytest.fixture(params=["response-aware", "paper"])
def model(request):
    torch.manual_seed(0)
    return Autoencoder(load_preset(request.param), GRID)


def test_shapes_and_a_proper_covariance(model):
    mean, factor = model.encoder(*example_inputs(GRID, 5))
    assert mean.shape == (5, 8) and factor.shape == (5, 8, 8)
    assert torch.all(torch.triu(factor, 1) == 0) and torch.all(torch.diagonal(factor, dim1=1, dim2=2) > 0)


def test_gradients_reach_every_parameter(model):
    mean, factor = model.encoder(*example_inputs(GRID, 5))
    log_flux = model.decoder(mean)
    (log_flux.square().mean() + mean.square().mean() + factor.square().mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_the_jacobian_is_the_derivative(model):
    model = model.double()
    z = torch.randn(3, 8, dtype=torch.float64)
    log_flux, jacobian = model.decoder.with_slopes(z, torch.eye(8, dtype=torch.float64))
    torch.testing.assert_close(log_flux, model.decoder(z))
    for i in range(3):
        wanted = torch.autograd.functional.jacobian(lambda one: model.decoder(one[None])[0], z[i])
        torch.testing.assert_close(jacobian[i], wanted, rtol=1e-6, atol=1e-8)


def test_decoded_spectra_hold_one_photon(model):
    photons = torch.exp(model.decoder(3.0 * torch.randn(20, 8))).detach().numpy()
    band = (GRID.energy_mid > 0.5) & (GRID.energy_mid < 8.0)
    np.testing.assert_allclose(photons[:, band].sum(axis=1), 1.0, rtol=1e-4)


def test_empty_spectra_encode_to_finite_numbers(model):
    counts, background, unit, spread, scale = example_inputs(GRID, 2)
    mean, factor = model.encoder(0 * counts, 0 * background, unit, spread, 0 * scale)
    assert torch.isfinite(mean).all() and torch.isfinite(factor).all()


def test_exposure_and_area_units_do_not_matter(model):
    # Only the shape of the unit spectrum enters: cm2 or m2, a day or a second.
    counts, background, unit, spread, scale = example_inputs(GRID, 4)
    ours = model.encoder(counts, background, unit, spread, scale)[0]
    theirs = model.encoder(counts, background, 1e4 * unit, spread, scale)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
