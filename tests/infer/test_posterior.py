"""The posterior of one spectrum: as the table has it, consistent with itself, and with an integral done otherwise."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import multivariate_normal

import xlatent as xl
from xlatent.core.bands import BANDS, FLUX_BANDS, column_suffix
from xlatent.core.errors import ParameterError
from xlatent.infer.embed import LatentModel, load_model
from xlatent.infer.refine import AMPLITUDE_WIDTH, amplitude_centre, objective, source_counts

SAMPLE = str(files("xlatent") / "sample" / "*.pha*")


@pytest.fixture(scope="module")
def model():
    return load_model(threads=1)


@pytest.fixture(scope="module")
def spectra():
    return xl.read_all(SAMPLE)


@pytest.fixture(scope="module", params=["gaussian", "exact"])
def posterior(request, model, spectra):
    return model.posterior(spectra[0], request.param)


def test_it_is_what_the_table_says(posterior, model, spectra):
    row = model.embed(spectra[0], posterior=posterior.kind)
    np.testing.assert_allclose(posterior.mean, row.z[0], rtol=1e-12)
    np.testing.assert_allclose(posterior.covariance, row.covariance[0], rtol=1e-9, atol=1e-12)
    for band in FLUX_BANDS:
        for photons, kind in ((False, "flux"), (True, "photflux")):
            name = f"{kind}_{column_suffix(band)}"
            assert posterior.flux(*BANDS[band], photons=photons) == tuple(
                row.values(name + end)[0] for end in ("", "_lolim", "_hilim")
            )


def test_fluxes_of_any_band_go_on_from_those_of_the_table(posterior):
    for photons in (False, True):
        table, near = posterior.flux(0.5, 7.0, photons=photons), posterior.flux(0.5, 7.001, photons=photons)
        np.testing.assert_allclose(near, table, rtol=0.05)  # a network stands for the decoder in the table
        narrow = posterior.flux(1.0, 1.5, photons=photons)
        assert 0 < narrow.lolim < narrow.value < narrow.hilim < table.value
    spectrum = posterior.photons
    assert np.all(spectrum.lolim <= spectrum.value) and np.all(spectrum.value <= spectrum.hilim)
    energy = posterior.grid.energy
    inside = (energy[:-1] >= 1.0) & (energy[1:] <= 6.0)
    summed = float(np.sum((spectrum.value * np.diff(energy))[inside]))
    band = posterior.flux(energy[:-1][inside][0], energy[1:][inside][-1], photons=True)
    assert summed == pytest.approx(band.value, rel=0.03)  # the median of a sum is about the sum of medians


@pytest.mark.parametrize("band", [(0.4, 2.0), (2.0, 8.1), (2.0, 2.0), (3.0, 2.0), (float("nan"), 2.0)])
def test_a_band_without_counts_is_refused(posterior, band):
    with pytest.raises(ParameterError, match=r"give an ascending band within 0\.5-8 keV"):
        posterior.flux(*band)


def test_draws_have_its_mean_and_covariance(posterior):
    draws = posterior.sample(20_000, seed=3)
    sigma = np.sqrt(np.diagonal(posterior.covariance))
    assert np.abs(draws.mean(axis=0) - posterior.mean).max() < 0.03 * sigma.max()
    np.testing.assert_allclose(np.cov(draws.T), posterior.covariance, atol=0.05 * sigma.max() ** 2)
    assert np.array_equal(posterior.sample(5, seed=3, amplitude=True)[:, :-1], posterior.sample(5, seed=3))
    assert not np.array_equal(posterior.sample(5), posterior.sample(5))
    assert posterior.sample(0).shape == (0, 8) and len(np.unique(posterior.sample(500)[:, 0])) == 500
    with pytest.raises(ParameterError, match="found -1; give 0 or more"):
        posterior.sample(-1)


def test_draws_with_their_amplitude_have_its_fluxes(model, posterior):
    draws = posterior.sample(2000, seed=4, amplitude=True)
    photons = model.decode(draws[:, :-1]) * np.exp(draws[:, -1:])
    inside = (model.grid.energy_mid > 0.5) & (model.grid.energy_mid < 7.0)
    expected = posterior.flux(0.5, 7, photons=True).value
    assert np.median(photons[:, inside].sum(axis=1)) == pytest.approx(expected, rel=0.05)


def test_the_gaussian_density_is_the_normal_distribution(model, spectra):
    posterior = model.posterior(spectra[1])
    z = posterior.sample(12, seed=1).reshape(3, 4, 8)
    expected = multivariate_normal(posterior.mean, posterior.covariance).logpdf(z)
    np.testing.assert_allclose(posterior.log_prob(z), expected, rtol=1e-9)
    with pytest.raises(ParameterError, match=r"shape \(3, 7\): give 8 latents"):
        posterior.log_prob(np.zeros((3, 7)))


@pytest.mark.parametrize("which", [0, 1, 4])
def test_the_exact_density_is_the_joint_one_integrated(model, spectra, which):
    posterior = model.posterior(spectra[which], "exact")
    z = posterior.sample(3, seed=2)
    found = posterior.log_prob(z)
    assert found.shape == (3,)
    o, precision = posterior._observation, np.append(np.ones(8), AMPLITUDE_WIDTH**-2)
    centre = np.append(np.zeros(8), amplitude_centre(model._decoder, [o], 8))

    def joint(log_amplitude, point, highest=0.0):
        theta = np.append(point, log_amplitude)[None]
        source = source_counts(o, theta, model._decoder.log_flux(point[None]))
        return float(np.exp(-0.5 * objective(o, theta, source, centre, precision)[0] - highest))

    expected = []
    for point in z:
        grid = np.linspace(centre[-1] - 8.0, centre[-1] + 8.0, 1601)
        theta = np.column_stack([np.tile(point, (len(grid), 1)), grid])
        source = source_counts(o, theta, np.tile(model._decoder.log_flux(point[None]), (len(grid), 1)))
        value = -0.5 * objective(o, theta, source, centre, precision)
        top = grid[value.argmax()]
        part = quad(
            joint, top - 3.0, top + 3.0, args=(point, value.max()), points=[top - 0.01, top, top + 0.01], limit=200
        )
        expected.append(np.log(part[0]) + value.max())
    np.testing.assert_allclose(found - found[0], np.array(expected) - expected[0], atol=0.01)


def test_the_exact_density_weighs_draws_of_the_gaussian_into_exact_ones(model, spectra):
    faultless = LatentModel(model.info, model._encoder, model._decoder._session)
    gaussian, exact = (faultless.posterior(spectra[0], kind) for kind in ("gaussian", "exact"))
    z = gaussian.sample(600, seed=5)
    log_weights = exact.log_prob(z) - gaussian.log_prob(z)
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    effective = 1.0 / np.sum(weights**2)
    assert effective > 50
    sigma = np.sqrt(np.diagonal(exact.covariance))
    assert np.abs((weights @ z - exact.mean) / sigma).max() < 4.0 / np.sqrt(effective)


def test_points_have_no_posterior(spectra):
    with pytest.raises(ParameterError, match="points without a posterior"):
        load_model("paper-8", threads=1).posterior(spectra[0])


def test_they_are_shown_in_few_words(model, spectra, posterior):
    made = model.reconstruct(spectra[0])
    for thing, said in ((model, "chandra-acis-8"), (posterior, posterior.kind), (made, "516 seen")):
        assert said in repr(thing) + thing._repr_html_() and len(repr(thing)) < 200
        assert thing._repr_html_().startswith("<table>") and "</table>" in thing._repr_html_()
    assert spectra[0].name in repr(posterior) and spectra[0].name in repr(made)


def test_a_reconstruction_is_drawn_with_the_spectrum_it_is_of(model, spectra):
    made = model.reconstruct(spectra[0])
    assert made.spectrum is spectra[0]
    figure = made.plot()
    assert made.plot(figure.__class__(figsize=(9.6, 6.6))).get_axes() and len(figure.get_axes()) == 5


# -- what is embedded


def test_paths_are_read_and_embedded(model, spectra, shared_data):
    expected = model.embed(spectra)
    for given in (SAMPLE, [SAMPLE], [s.meta["file"] for s in spectra]):
        np.testing.assert_array_equal(model.embed(given).z, expected.z)
    np.testing.assert_array_equal(model.embed(iter(spectra)).z, expected.z)
    with pytest.raises(ParameterError, match=r"either spectra or paths .* found Spectrum, str; read the files first"):
        model.embed([spectra[0], SAMPLE])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", xl.XlatentWarning)
        real = model.embed(shared_data / "spectra" / "manifest.csv")
    assert len(real) == 24 and np.isfinite(real.z).all()


def test_threads_that_share_a_model_find_what_one_finds(spectra):
    expected = load_model(threads=1).embed(spectra * 5)
    shared = load_model(threads=1)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: shared.embed(spectra * 5), range(3)))
    for table in found:
        for name in ("cstat", "flux_b", "flux_b_hilim"):
            np.testing.assert_allclose(table.values(name), expected.values(name), rtol=1e-6)
        np.testing.assert_allclose(table.z, expected.z, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(table.covariance, expected.covariance, rtol=1e-6, atol=1e-9)
