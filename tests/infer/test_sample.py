"""Draws from the exact posterior against what they must be: known moments, brute force, and the same every time."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp
from typer.testing import CliRunner

from xlatent.cli.main import app
from xlatent.core.errors import ParameterError
from xlatent.core.spectrum import Spectrum
from xlatent.formats import latent_tables
from xlatent.infer import refine as refinement
from xlatent.infer import sample as sampling
from xlatent.infer.embed import LatentModel, load_model
from xlatent.infer.observation import encode, prepare
from xlatent.simulate import acis


@pytest.fixture(scope="module")
def model():
    return load_model(threads=1)


def spectrum_of(model, rng, z, counts, background=0.0):
    """Draw a spectrum from the decoder's own spectrum at z, so that the model is exactly right."""
    response = acis.response("BI", 2008.0, 1.0)
    empty = Spectrum(np.zeros(1024), 1e4, response=response)
    folded = model.decode(z) @ model.grid.native_response(response, np.ones(1024, dtype=bool))
    mean = folded * counts / folded[empty.select(0.5, 8.0)].sum()
    off = None
    level = np.full(1024, background / 514)
    if background:
        off = Spectrum(rng.poisson(10.0 * level).astype(float), 1e4, backscale=10.0)
    on = rng.poisson(mean + level).astype(float)
    return Spectrum(on, 1e4, backscale=1.0, background=off, response=response)


def refined(model, observation):
    mean, covariance = encode(model._encoder, [observation], model.info.beta)
    [fitted] = refinement.refine(model._decoder, [refinement.Proposal([observation], mean, covariance)])
    return fitted


def test_many_counts_give_a_gaussian(model):
    rng = np.random.default_rng(1)
    observation = prepare(spectrum_of(model, rng, 0.3 * rng.standard_normal(8), 3e7), model.projector)
    posterior = refined(model, observation)
    (draws,), (ess,) = sampling.sample(model._decoder, [observation], posterior)
    assert draws.shape == (1000, 9) and ess > 1000
    centre = np.append(posterior.z[0], posterior.log_amplitude[0])
    whitened = np.linalg.solve(np.linalg.cholesky(posterior.covariance[0]), (draws - centre).T)
    # A thousand draws know a mean to 0.03 and a variance to 0.045; a little of the curvature is left.
    assert np.all(np.abs(whitened.mean(axis=1)) < 0.25)
    assert np.all(np.abs(np.cov(whitened) - np.eye(9)) < 0.3)


def test_few_counts_agree_with_brute_force(model):
    # Twenty thousand spectra of the prior, each with its amplitude integrated out on a grid, know the answer too.
    rng = np.random.default_rng(2)
    observation = prepare(spectrum_of(model, rng, np.array([1.0, -0.5, 0.0, 0.8, 0, 0, 0.3, 0]), 8.0), model.projector)
    n = observation.n_on
    assert 3 <= n.sum() <= 15
    (draws,), (ess,) = sampling.sample(model._decoder, [observation], refined(model, observation), 2000)
    z = rng.standard_normal((20_000, 8))
    rates = np.concatenate([np.exp(model._decoder.log_flux(some)) @ observation.matrix for some in np.split(z, 10)])
    typical = np.exp(model._decoder.log_flux(np.zeros((1, 8)))[0]) @ observation.matrix
    centre = np.log(n.sum() / typical.sum())
    grid = centre + np.linspace(-6.0, 6.0, 121)
    joint = n.sum() * grid - rates.sum(axis=1)[:, None] * np.exp(grid) - 0.5 * ((grid - centre) / 3.0) ** 2
    joint += (np.log(rates[:, n > 0]) @ n[n > 0])[:, None]
    weights = np.exp(joint - logsumexp(joint))
    mean = weights.sum(axis=1) @ z
    sigma = np.sqrt(weights.sum(axis=1) @ (z - mean) ** 2)
    error = 1.0 / np.sqrt(min(ess, 2000.0)) + np.sqrt(np.sum(weights.sum(axis=1) ** 2))
    assert error < 0.08
    assert np.all(np.abs(draws[:, :8].mean(axis=0) - mean) < 3.5 * error * sigma)
    assert np.all(np.abs(draws[:, :8].std(axis=0) / sigma - 1.0) < 3.5 * error)
    amplitude = weights.sum(axis=0) @ grid
    spread = np.sqrt(weights.sum(axis=0) @ (grid - amplitude) ** 2)
    assert abs(draws[:, 8].mean() - amplitude) < 3.5 * error * spread
    assert draws[:, 8].std() == pytest.approx(spread, rel=3.5 * error)


@pytest.mark.parametrize("background", [0.0, 200.0])
def test_draws_follow_the_objective_of_refinement(model, background):
    # Nine parameters lie on average nine units of the objective above its minimum, where it is a parabola.
    rng = np.random.default_rng(3)
    observation = prepare(spectrum_of(model, rng, 0.5 * rng.standard_normal(8), 3000.0, background), model.projector)
    posterior = refined(model, observation)
    (draws,), _ = sampling.sample(model._decoder, [observation], posterior)
    prior_mean = np.append(np.zeros(8), refinement.amplitude_centre(model._decoder, [observation], 8))
    precision = np.append(np.ones(8), refinement.AMPLITUDE_WIDTH**-2)

    def objective(theta):
        source = refinement.source_counts(observation, theta, model._decoder.log_flux(theta[:, :8]))
        return refinement.objective(observation, theta, source, prior_mean, precision)

    above = objective(draws) - objective(np.append(posterior.z, posterior.log_amplitude)[None])
    assert above.min() > -0.5
    assert 7.0 < above.mean() < 11.0


def test_the_ensemble_finds_a_gaussian(monkeypatch):
    monkeypatch.setattr(sampling, "_LOOKS", 4)
    rng = np.random.default_rng(5)
    root = np.tril(rng.standard_normal((9, 9))) + 2.0 * np.eye(9)
    inverse = np.linalg.inv(root)
    centre = rng.standard_normal(9)

    def log_density(theta):
        return -0.5 * np.sum(((theta - centre) @ inverse.T) ** 2, axis=1)

    found = []
    for _ in range(2):
        again = np.random.default_rng(6)
        found.append(sampling._ensemble(log_density, again.standard_normal((64, 9)), again, 2000))
    (draws, ess), (repeated, _) = found
    np.testing.assert_array_equal(draws, repeated)
    assert draws.shape == (2000, 9) and ess > 500
    whitened = (draws - centre) @ inverse.T
    assert np.all(np.abs(whitened.mean(axis=0)) < 5.0 / np.sqrt(ess))
    assert np.all(np.abs(np.cov(whitened.T) - np.eye(9)) < 7.0 / np.sqrt(ess))


@pytest.mark.slow
def test_where_importance_sampling_fails_the_ensemble_agrees(model, monkeypatch):
    # Of a posterior with one maximum: walkers seldom cross between two, and cannot tell how much each weighs.
    rng = np.random.default_rng(11)
    observation = prepare(spectrum_of(model, rng, 0.5 * rng.standard_normal(8), 1000.0), model.projector)
    posterior = refined(model, observation)
    (usual,), (ess,) = sampling.sample(model._decoder, [observation], posterior, 4000)
    monkeypatch.setattr(sampling, "_POINTS", 200)
    monkeypatch.setattr(sampling, "_ROUNDS", 1)
    monkeypatch.setattr(sampling, "_LOOKS", 8)
    (draws,), (fallen,) = sampling.sample(model._decoder, [observation], posterior)
    assert ess > 1000 and fallen > 200
    error = 1.0 / np.sqrt(fallen) + 1.0 / np.sqrt(1000.0)
    assert np.all(np.abs(draws.mean(axis=0) - usual.mean(axis=0)) < 3.5 * error * usual.std(axis=0))
    assert np.all(np.abs(draws.std(axis=0) / usual.std(axis=0) - 1.0) < 3.5 * error)


def test_the_table_is_that_of_the_draws_and_the_same_made_twice(model):
    rng = np.random.default_rng(9)
    spectra = [spectrum_of(model, rng, 0.5 * rng.standard_normal(8), counts, 20.0) for counts in (0.0, 300.0)]
    done = []
    exact = model.embed(spectra, posterior="exact", progress=done.append)
    assert done == [2]
    assert np.all(np.asarray(exact["ess"]) > 200)
    assert np.linalg.eigvalsh(exact.covariance).min() > 0
    # The statistic stays that of the mode, and a Gaussian has no effective number of draws.
    gaussian = model.embed(spectra)
    assert np.isnan(np.asarray(gaussian["ess"])).all()
    np.testing.assert_allclose(exact["cstat"], gaussian["cstat"], rtol=1e-6)
    # Now or again the same numbers; alone or among others the same draws, but for rounding.
    again = model.embed(spectra, posterior="exact")
    alone = model.reconstruct(spectra[1], posterior="exact")
    for name in ("z0", "z7_err", "flux_b", "flux_h_lolim", "hard_hs", "ess"):
        assert again[name][1] == exact[name][1], name
        assert alone.table[name][0] == pytest.approx(exact[name][1], rel=0.02, abs=0.02), name
    assert np.all(alone.counts_lo <= alone.counts_hi)


def test_what_cannot_be_drawn_is_said(model):
    spectrum = Spectrum(np.ones(1024), 1e4, response=acis.response())
    with pytest.raises(ParameterError, match="'gaussian' or 'exact', found 'precise'"):
        model.embed(spectrum, posterior="precise")
    with pytest.raises(ParameterError, match="leave refinement on"):
        model.embed(spectrum, posterior="exact", refine=False)
    with pytest.raises(ParameterError, match="leave refinement on"):
        model.reconstruct(spectrum, posterior="exact", refine=False)
    points = model.info.model_copy(update={"name": "points", "preset": {**model.info.preset, "loss": "mse"}})
    with pytest.raises(ParameterError, match="'points' are points without a posterior"):
        LatentModel(points, model._encoder, model._decoder._session).embed(spectrum, posterior="exact")


def test_the_commands_take_the_choice(model, tmp_path):
    spectrum = spectrum_of(model, np.random.default_rng(10), np.zeros(8), 300.0, 20.0)
    replace(spectrum, meta={"name": "one"}).to_ogip(tmp_path)
    table, figure, pha = (str(tmp_path / name) for name in ("t.parquet", "f.png", "one.pha"))
    for command, output in (("embed", table), ("show", figure)):
        done = CliRunner().invoke(app, [command, pha, "--posterior", "exact", "--output", output])
        assert done.exit_code == 0, done.output
    assert latent_tables.read(table)["ess"][0] > 1000
    refused = CliRunner().invoke(app, ["embed", pha, "--posterior", "exact", "--no-refine", "--output", table])
    assert refused.exit_code == 2
    assert refused.stderr.startswith("xlatent: error: ") and refused.stderr.count("\n") == 1


def test_a_proposal_stays_whole_where_points_leave_it(model):
    # All weight lies where only the prior proposes: components keep their shape however often they are fitted.
    rng = np.random.default_rng(12)
    observation = prepare(spectrum_of(model, rng, 0.5 * rng.standard_normal(8), 1000.0), model.projector)
    target = sampling._Target(model._decoder, observation, refined(model, observation), 0)
    proposal = sampling._first(target, None)
    white = np.full((50, 9), 40.0) + rng.standard_normal((50, 9))
    fixed = np.zeros((1, 50))
    for _ in range(20):
        proposal = proposal.fitted(white, fixed, np.full(50, 0.02))
    assert np.linalg.eigvalsh(proposal.components.roots @ proposal.components.roots.transpose(0, 2, 1)).min() > 0.1
    assert proposal.shares.sum() == pytest.approx(1.0) and proposal.shares[-1] > 0.9


def test_a_source_that_is_not_detected_may_be_as_faint_as_the_prior_allows(model):
    # Draws of the prior, weighted, are the posterior where the counts say little.
    rng = np.random.default_rng(13)
    observation = prepare(spectrum_of(model, rng, np.zeros(8), 6.0, 30.0), model.projector)
    fits = refined(model, observation)
    (draws,), _ = sampling.sample(model._decoder, [observation], fits, 2000)
    target = sampling._Target(model._decoder, observation, fits, 0)
    assert not target.detected
    white = target.draw_from_prior(rng, 20_000)
    value, log_amplitude = target(white)
    weights = sampling.normalised_weights(value - target.prior_log_density(white))
    assert sampling.effective_number(weights) > 2000
    for limit in np.quantile(draws[:, 8], (0.05, 0.2, 0.5, 0.8)):
        assert weights[log_amplitude < limit].sum() == pytest.approx(np.mean(draws[:, 8] < limit), abs=0.04)
