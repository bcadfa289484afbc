"""Draws that quantities are made from: as wide as the covariance says, with errors of the decoder, always the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlatent.infer.embed import load_model
from xlatent.infer.observation import prepare
from xlatent.infer.quantities import FLUX_COLUMNS, drawn_fluxes, posterior_draws, quantiles, quantities
from xlatent.infer.refine import Decoder, RefinedFits
from xlatent.simulate.reference import reference_spectra


def posterior(covariance, moved=None, log_flux=None):
    n, k = len(covariance), covariance.shape[1]
    nothing = np.ones(n)
    moved = np.zeros((n, k, 0)) if moved is None else moved
    log_flux = np.zeros((n, moved.shape[2], 4)) if log_flux is None else log_flux
    centre = np.full((n, k - 1), 2.0), np.full(n, -3.0)
    decoded = np.zeros((n, 4), dtype=np.float32), np.zeros((n, k - 1, 4), dtype=np.float32)
    return RefinedFits(*centre, covariance, nothing, nothing, nothing, moved, log_flux, nothing, *decoded)


def test_widths_and_centre():
    scale = np.array([0.01, 0.1, 1.0])
    draws = posterior_draws(posterior(np.diag(scale**2)[None]), 40_000).theta[0] - [2.0, 2.0, -3.0]
    np.testing.assert_allclose(draws.mean(axis=0), 0.0, atol=1e-12)
    low, high, far = np.quantile(draws / scale, [0.15865, 0.84135, 0.975], axis=0)
    np.testing.assert_allclose([-low, high], 1.0, rtol=0.03)
    np.testing.assert_allclose(far, 1.96, rtol=0.03)


def test_correlations_hold_and_a_point_stays_one():
    covariance = np.zeros((2, 2, 2))
    covariance[0] = [[1.0, 0.8], [0.8, 1.0]]
    draws = posterior_draws(posterior(covariance), 4000).theta
    assert np.corrcoef(draws[0].T)[0, 1] == pytest.approx(0.8, abs=0.04)
    np.testing.assert_allclose(draws[1], np.tile([2.0, -3.0], (4000, 1)))
    np.testing.assert_array_equal(draws, posterior_draws(posterior(covariance), 4000).theta)


def test_errors_of_the_decoder_widen_the_draws_and_have_heavy_tails():
    known, moved = np.diag([1e-12, 1e-12])[None], np.array([[[0.3], [0.1]]])
    made = posterior_draws(posterior(known, moved, np.full((1, 1, 4), 0.05)), 40_000)
    pulls = (made.theta[0] - [2.0, -3.0]) / [0.3, 0.1]
    low, high, far = np.quantile(pulls, [0.15865, 0.84135, 0.975], axis=0)
    np.testing.assert_allclose([-low, high], 1.0, rtol=0.03)
    assert (far > 2.1).all() and (far < 2.5).all()
    np.testing.assert_allclose(pulls[:, 0], made.errors[:, 0], atol=1e-4)  # one error moves all that it moves

    class Flat:  # a session whose decoder makes the same spectrum everywhere
        def run(self, names, inputs):
            n, k = len(inputs["z"]), len(inputs["directions"])
            return [np.zeros((n, 4)), np.zeros((n, 4, k))]

    spectra = made.photons(Decoder(Flat()), 0)
    np.testing.assert_allclose(spectra, np.exp(made.theta[0][:, -1:] + 0.05 * made.errors) * np.ones(4), rtol=1e-6)


@pytest.mark.slow
@given(st.integers(2, 40), st.integers(0, 2**31))
def test_another_draw_lies_between_quantiles_as_often_as_they_say(n, seed):
    # Of n + 1 uniform draws each is equally likely to be the one left out: its expected share is exact by symmetry.
    draws = np.random.default_rng(seed).random((400, n + 1))
    levels = (1 / (n + 1), n / (n + 1))
    inside = [low < row[0] < high for row in draws for low, high in [quantiles(row[1:], levels)]]
    assert abs(np.mean(inside) - (levels[1] - levels[0])) < 5.0 * 0.5 / np.sqrt(400)


@pytest.mark.slow
def test_fluxes_of_faint_spectra_need_no_decoding_and_most_bright_ones_are_decoded():
    model = load_model(threads=1)
    decoded = []
    for log_counts in ((1.5, 2.5), (5.0, 5.5)):
        spectra, _ = reference_spectra(model.grid, 24, log_counts)
        draws = posterior_draws(model._posterior([prepare(s, model.projector) for s in spectra], True))
        quick = quantities(drawn_fluxes(model._decoder, draws, model.grid, model._fluxes))
        slow = quantities(drawn_fluxes(model._decoder, draws, model.grid))
        shifts = []
        for name in ("flux_b", "flux_s", "flux_h", "hard_hs"):
            sigma = 0.5 * (slow[f"{name}_hilim"] - slow[f"{name}_lolim"])
            shifts.append(np.abs(quick[name] - slow[name]) / sigma)
        assert np.quantile(shifts, 0.9) <= 0.3
        decoded.append(np.mean(np.array(shifts) == 0.0))
    assert decoded[0] < 0.1 and decoded[1] > 0.7


@pytest.mark.slow
def test_in_every_draw_the_broad_band_is_the_sum_of_its_parts():
    model = load_model(threads=1)
    for log_counts in ((1.5, 2.5), (5.0, 5.5)):  # fluxes by the head, and decoded
        spectra, _ = reference_spectra(model.grid, 8, log_counts)
        draws = posterior_draws(model._posterior([prepare(s, model.projector) for s in spectra], True))
        drawn = drawn_fluxes(model._decoder, draws, model.grid, model._fluxes)
        by_name = dict(zip(FLUX_COLUMNS, np.moveaxis(drawn, 2, 0), strict=True))
        for kind in ("photflux", "flux"):
            s, m, h = (by_name[f"{kind}_{band}"] for band in "smh")
            np.testing.assert_allclose(by_name[f"{kind}_b"], s + m + h, rtol=1e-6)
            np.testing.assert_allclose(by_name[f"{kind}_0p5_2"], s + m, rtol=1e-6)
