"""The encoder's proposal: corrected for the weight of the prior in training, honest about two views of a source."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ortho_group

from xlatent.core.spectrum import Spectrum
from xlatent.infer.embed import load_model
from xlatent.infer.observation import encode, prepare, undo_beta_weighting
from xlatent.simulate import acis, population


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1.0))
def test_tempering_is_undone_exactly_for_gaussians(seed, beta):
    rng = np.random.default_rng(seed)
    turn = ortho_group.rvs(4, random_state=rng)
    data = turn @ np.diag(10 ** rng.uniform(-2, 3, 4)) @ turn.T  # precision of the data
    x, unit = rng.standard_normal(4), np.eye(4)
    learnt_mean = np.linalg.solve(data + beta * unit, data @ x)
    learnt_covariance = np.linalg.inv(data / beta + unit)
    mean, covariance = undo_beta_weighting(learnt_mean[None], learnt_covariance[None], beta)
    np.testing.assert_allclose(covariance[0], np.linalg.inv(data + unit), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(mean[0], np.linalg.solve(data + unit, data @ x), rtol=1e-6, atol=1e-9)


def test_two_views_of_one_source_differ_as_their_errors_say():
    # ACIS-S in 2001 and ACIS-I in 2019, a thousand counts: whitened differences have a mean square of about eight.
    model, rng = load_model(threads=1), np.random.default_rng(12)
    n = 60
    rows = population.draw(rng, n)
    means, covariances = [], []
    for chip, year in (("BI", 2001.0), ("FI", 2019.0)):
        response = acis.response(chip, year)
        edges = np.append(response.energy_lo, response.energy_hi[-1])
        folded = response.fold(population.spectra(edges, rows))
        mask = (response.chan_hi > 0.5) & (response.chan_lo < 8.0)
        counts = rng.poisson(folded / folded[:, mask].sum(axis=1, keepdims=True) * 1000.0).astype(float)
        observations = [prepare(Spectrum(row, 1e4, response=response), model.projector) for row in counts]
        mean, covariance = encode(model._encoder, observations, model.info.beta)
        means.append(mean)
        covariances.append(covariance)
    difference = means[0] - means[1]
    whitened = np.linalg.solve(covariances[0] + covariances[1], difference[:, :, None])[:, :, 0]
    squares = (difference * whitened).sum(axis=1)
    # A tail of sources that the decoder cannot draw is left out by the median, which is 7.3 for chi-square with 8.
    assert 2.5 < np.median(squares) < 10.0


def test_the_whole_prior_needs_no_correction():
    mean, covariance = np.ones((1, 8)), np.eye(8)[None] * 0.3
    found = undo_beta_weighting(mean, covariance, 1.0)
    assert found[0] is mean and found[1] is covariance
