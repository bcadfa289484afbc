"""Latents from band fluxes: ranks of simulated truths, what weak and missing data leave, nothing counted twice."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.stats import kstest

from xlatent.core.bands import BANDS, hardness_ratios, photon_flux
from xlatent.core.errors import ParameterError
from xlatent.infer import photometry, photometry_sampler
from xlatent.infer.embed import load_model
from xlatent.infer.photometry import FLUX_FLOOR, PhotometricColumn, embed_photometry
from xlatent.infer.photometry_sampler import FLUXES, LEAST_ESS, RATIOS

SMH = ("s", "m", "h")


@pytest.fixture(scope="module", autouse=True)
def small_bank():
    """A quarter of the large bank, so that tests begin at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photometry_sampler, "_MANY", 2**15)
        yield


@pytest.fixture(scope="module")
def model():
    return load_model(threads=1)


@pytest.fixture(scope="module")
def typical(model):
    """Photon fluxes of the spectrum at z = 0, a photon in 0.5-8 keV."""
    photons = np.exp(model._decoder.log_flux(np.zeros((1, 8))))
    return {f"photflux_{band}": photon_flux(photons, model.grid.energy, band)[0] for band in (*SMH, "b")}


def known(name, value, error):
    value = np.atleast_1d(np.asarray(value, dtype=float))
    error = np.broadcast_to(np.asarray(error, dtype=float), value.shape).copy()
    return PhotometricColumn(name, value, error, error)


def of_typical(typical, share, names=SMH):
    """The typical source, each flux known to a share of itself."""
    return [
        known(f"photflux_{band}", typical[f"photflux_{band}"], share * typical[f"photflux_{band}"]) for band in names
    ]


def volume(table, row=0):
    return np.linalg.slogdet(table.covariance[row])[1]


@pytest.mark.slow
def test_ranks_of_the_truth_are_flat(model):
    # z from the prior, fluxes with normal errors of which most are a tenth of a typical flux or less.
    rng = np.random.default_rng(3)
    n = 250
    z = rng.standard_normal((n, 8))
    photons = np.exp(model._decoder.log_flux(z) + np.log(1e-5) + rng.standard_normal((n, 1)))
    sigma = 3e-7
    measured, truth = [], {}
    for band in SMH:
        truth[f"photflux_{band}"] = flux = photon_flux(photons, model.grid.energy, band)
        noise = np.hypot(sigma, FLUX_FLOOR * flux) * rng.standard_normal(n)
        measured.append(known(f"photflux_{band}", flux + noise, sigma))
    sampler = model.photometry_sampler
    used = photometry._independent(measured)
    ranks = np.empty((n, 8))
    for i in range(n):
        posterior = sampler.posterior(photometry._row(measured, used, i))
        ranks[i] = posterior.weights @ (posterior.points.z[posterior.members] < z[i])
    assert min(kstest(ranks[:, k], "uniform").pvalue for k in range(8)) > 1e-3
    for level, error in ((0.68, 0.04), (0.95, 0.02)):
        assert np.mean(np.abs(ranks - 0.5) < level / 2) == pytest.approx(level, abs=error)
    table = embed_photometry(model, measured, {})
    for name, flux in truth.items():
        inside = (flux > table[f"{name}_lolim"]) & (flux < table[f"{name}_hilim"])
        assert np.mean(inside) == pytest.approx(0.68, abs=0.1), name
    assert np.all(table["ess"][["low_ess" not in flags for flags in table["flags"]]] >= LEAST_ESS)


def test_better_data_give_narrower_posteriors_down_to_the_floor(model, typical):
    tables = [embed_photometry(model, of_typical(typical, share), {}) for share in (2.0, 0.3, 0.05, 1e-5, 1e-7)]
    volumes = [volume(table) for table in tables]
    assert volumes[0] > volumes[1] > volumes[2] > volumes[3]
    assert volumes[3] == pytest.approx(volumes[4], abs=1e-3)  # calibration allows no more
    assert "not_significant" in tables[0]["flags"][0] and tables[2]["flags"][0] == "from_fluxes"
    log_flux = np.array([np.log10(table["photflux_s"][0] / typical["photflux_s"]) for table in tables])
    np.testing.assert_allclose(log_flux[2:], 0.0, atol=0.03)


def test_what_shares_photons_counts_once(model, typical):
    alone = embed_photometry(model, of_typical(typical, 0.1), {})
    again = [known(name.replace("photflux", "flux"), 1e-9, 1e-11) for name in ("photflux_s", "photflux_h")]
    ratio = [known("hard_hs", 0.9, 0.01)]
    with_more = embed_photometry(model, ratio + again + of_typical(typical, 0.1, ("b", *SMH)), {})
    np.testing.assert_array_equal(with_more.z, alone.z)
    np.testing.assert_array_equal(with_more.covariance, alone.covariance)
    # But the broad band stands in where the others are missing.
    broad = embed_photometry(model, of_typical(typical, 0.1, "b"), {})
    assert broad["photflux_b"][0] == pytest.approx(typical["photflux_b"], rel=0.1)
    assert volume(broad) > volume(alone)


def test_an_upper_limit_is_less_than_a_flux_and_more_than_nothing(model, typical):
    limit = 0.05 * typical["photflux_s"]
    soft = PhotometricColumn("photflux_s", np.zeros(1), np.full(1, np.nan), np.full(1, limit))
    hard = of_typical(typical, 0.1, "h")
    table = embed_photometry(model, [soft, *hard], {})
    free = embed_photometry(model, hard, {})
    assert table["photflux_s_hilim"][0] < 1.5 * limit < free["photflux_s_hilim"][0]
    assert table["hard_hs"][0] > free["hard_hs"][0]
    # Far below the limit all spectra are alike: what the posterior says there is what the prior says.
    assert table["photflux_s_lolim"][0] < 0.2 * limit
    only = embed_photometry(model, [soft], {})
    assert only["flags"][0] == "from_fluxes,not_significant" and 0.5 < volume(only) - volume(free) + 1 < 20
    assert np.isfinite([only["log_flux_b"][0], only["log_flux_b_err"][0]]).all() and only["log_flux_b_err"][0] > 0.5


def test_asymmetric_errors_point_the_right_way(model, typical):
    def flux_with(lower, upper):
        value = typical["photflux_b"]
        one = PhotometricColumn("photflux_b", np.array([value]), np.array([lower * value]), np.array([upper * value]))
        return embed_photometry(model, [one], {})["photflux_b"][0] / value

    assert flux_with(0.02, 0.3) > 1.05 and flux_with(0.3, 0.02) < 0.95
    assert flux_with(0.1, np.nan) == flux_with(0.1, 0.1) == flux_with(0.0, 0.1)


def test_ratios_say_the_shape_and_no_flux(model, typical):
    photons = np.exp(model._decoder.log_flux(np.zeros((1, 8))))
    ratios = {name: float(value[0]) for name, value in hardness_ratios(photons, model.grid.energy).items()}
    table = embed_photometry(model, [known(name, value, 0.03) for name, value in ratios.items()], {})
    assert table["flags"][0] == "from_ratios" and np.isnan(table["log_flux_b"][0]) and np.isnan(table["flux_h"][0])
    for name, value in ratios.items():
        assert table[name][0] == pytest.approx(value, abs=0.05)
        assert table[f"{name}_hilim"][0] - table[f"{name}_lolim"][0] < 0.12
    # The fluxes that these ratios are of tell the same.
    fluxes = embed_photometry(model, of_typical(typical, 0.05), {})
    assert np.abs(table.z - fluxes.z).max() < 0.5


def test_nothing_known_is_the_prior_and_keeps_its_row(model, typical):
    value = np.array([np.nan, typical["photflux_s"], np.nan])
    table = embed_photometry(
        model, [known("photflux_s", value, 0.1 * typical["photflux_s"])], {"name": ["a", "b", "c"]}
    )
    assert list(table["name"]) == ["a", "b", "c"]
    assert [flags.split(",")[0] for flags in table["flags"]] == ["no_data", "from_fluxes", "no_data"]
    assert np.abs(table.z[0]).max() < 0.02 and np.abs(table.z_err[0] - 1.0).max() < 0.02
    assert table["active"][0] == 0 and np.isnan(table["flux_b"][0]) and np.isfinite(table["hard_hm"][0])


def test_rare_and_impossible_spectra_are_found_or_told(model, typical):
    # Two standard deviations along a latent, to three per cent: hardly a draw of thousands is like this.
    z = 2.0 * np.eye(8)[:3]
    photons = np.exp(model._decoder.log_flux(z))
    fluxes = [photon_flux(photons, model.grid.energy, band) for band in SMH]
    rare = embed_photometry(model, [known(f"photflux_{b}", f, 1e-3 * f) for b, f in zip(SMH, fluxes, strict=True)], {})
    assert not any("poor_fit" in flags for flags in rare["flags"])
    told = np.array(["low_ess" in flags for flags in rare["flags"]])
    assert np.all(told | (np.asarray(rare["ess"]) >= LEAST_ESS))
    for band, flux in zip(SMH, fluxes, strict=True):
        np.testing.assert_allclose(rare[f"photflux_{band}"], flux, rtol=0.06)
    # A spectrum that shines in the middle band alone is none that the decoder makes.
    share = {"photflux_s": 1e-6, "photflux_m": 1.0, "photflux_h": 1e-6}
    odd = embed_photometry(model, [known(name, x, 1e-2 * x) for name, x in share.items()], {})
    assert {"poor_fit", "low_ess"} & set(odd["flags"][0].split(","))


def test_rows_do_not_depend_on_each_other(model, typical):
    rng = np.random.default_rng(6)
    n = photometry._CHUNK + 3
    measured = [
        known(name, typical[name] * rng.uniform(0.2, 2.0, n), 0.3 * typical[name]) for name in list(typical)[:3]
    ]
    told = []
    together = embed_photometry(model, measured, {}, progress=told.append)
    assert told == [photometry._CHUNK, 3]
    last = [PhotometricColumn(one.name, one.value[-1:], one.lower[-1:], one.upper[-1:]) for one in measured]
    np.testing.assert_array_equal(embed_photometry(model, last, {}).z[0], together.z[-1])


def test_bands_are_those_of_the_table(model):
    assert {band for band, _ in FLUXES.values()} <= set(BANDS)
    table = embed_photometry(model, [known("hard_hm", 0.1, 0.1)], {})
    assert set(FLUXES) | set(RATIOS) <= set(table.colnames)


def test_mistakes(model):
    with pytest.raises(ParameterError, match="cannot embed from 'flux_u'"):
        embed_photometry(model, [known("flux_u", 1e-15, 1e-16)], {})
    with pytest.raises(ParameterError, match="at least one measured quantity"):
        embed_photometry(model, [], {})
    with pytest.raises(ParameterError, match="equal lengths"):
        embed_photometry(model, [known("flux_s", 1e-15, 1e-16), known("flux_m", [1e-15] * 2, 1e-16)], {})
    with pytest.raises(ParameterError, match="points without a posterior"):
        embed_photometry(load_model("paper-8", threads=1), [known("flux_s", 1e-15, 1e-16)], {})


def test_the_broad_band_of_each_draw_is_the_sum_of_its_parts(model, typical):
    sampler = model.photometry_sampler
    row = photometry._row(of_typical(typical, 0.1), np.ones((3, 1), dtype=bool), 0)
    drawn = dict(zip((*FLUXES, *RATIOS), photometry._drawn(sampler.posterior(row)), strict=True))
    for kind in ("photflux", "flux"):
        s, m, h = (drawn[f"{kind}_{band}"] for band in SMH)
        np.testing.assert_allclose(drawn[f"{kind}_b"], s + m + h, rtol=1e-5)
        np.testing.assert_allclose(drawn[f"{kind}_0p5_2"], s + m, rtol=1e-5)


def test_two_threads_share_the_draws_of_a_model(typical):
    measured, shared = of_typical(typical, 0.05), load_model(threads=1)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: embed_photometry(shared, measured, {}), range(2))
    alone = embed_photometry(load_model(threads=1), measured, {})
    for table in (first, second):
        np.testing.assert_array_equal(table.z, alone.z)
        np.testing.assert_array_equal(table["flux_b"], alone["flux_b"])
