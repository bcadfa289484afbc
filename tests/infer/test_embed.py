"""From spectra to the table, on simulated files and on the real observations."""

import csv
import subprocess
import sys
import warnings

import numpy as np
import pytest
from scipy.stats import chi2

from xlatent.core.errors import ParameterError, ResponseError, XlatentWarning
from xlatent.core.spectrum import Spectrum
from xlatent.formats import ogip_spectrum
from xlatent.formats.inputs import find
from xlatent.infer.embed import load_model
from xlatent.simulate import acis


@pytest.fixture(scope="module")
def model():
    return load_model(threads=1)


@pytest.fixture(scope="module")
def real(shared_data, model):
    """The 24 real spectra, their table, and the classical fits by name."""
    folder = shared_data / "spectra"
    spectra = []
    with (folder / "manifest.csv").open() as file, warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", XlatentWarning
        )  # dead paths in headers; what they are is tested with the reader
        for row in csv.DictReader(file):
            given = {key: folder / row[key] for key in ("arf", "rmf", "background") if row[key]}
            spectra.append(ogip_spectrum.read(folder / row["pha"], name=row["name"], **given))
    with (folder / "reference_fits.csv").open() as file:
        fits = {row["name"]: row for row in csv.DictReader(file)}
    return spectra, model.embed(spectra), fits


def test_real_spectra_have_finite_latents(real):
    spectra, table, _ = real
    assert len(table) == len(spectra) == 24
    assert np.isfinite(table.z).all() and (table.z_err > 0).all() and (table.z_err < 1.2).all()
    for name in ("cstat", "cstat_expected", "cstat_sigma", "flux_b", "flux_b_lolim", "flux_b_hilim", "hard_hs"):
        assert np.isfinite(np.asarray(table[name])).all(), name


def test_the_statistic_is_that_of_the_reference_fits(real):
    # Same channels, same counts: what is compared with the classical fits is comparable.
    spectra, table, fits = real
    for i, spectrum in enumerate(spectra):
        if spectrum.name in fits:
            assert spectrum.select(0.5, 8.0).sum() == int(fits[spectrum.name]["channels"])
            assert table["counts"][i] == float(fits[spectrum.name]["counts"])


def test_most_real_spectra_fit_as_well_as_the_best_of_six_models(real):
    spectra, table, fits = real
    excess = [table["cstat"][i] - float(fits[s.name]["best"]) for i, s in enumerate(spectra) if s.name in fits]
    assert np.mean(np.array(excess) <= 30.0) >= 0.7


def test_one_jet_seen_four_times_is_one_source(real):
    spectra, table, _ = real
    rows = [i for i, s in enumerate(spectra) if s.name.startswith("4c19-44")]
    assert len(rows) == 4
    for a in rows:
        for b in rows:
            if a < b:
                d = table.z[a] - table.z[b]
                distance = d @ np.linalg.solve(table.covariance[a] + table.covariance[b], d)
                assert chi2.sf(distance, 8) > 0.01


def test_other_missions_embed(shared_data, model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XlatentWarning)
        sources = find([shared_data / "other-missions"])
        spectra = [
            ogip_spectrum.read(s.pha, arf=s.arf, rmf=s.rmf, background=s.background, name=s.name) for s in sources
        ]
    table = model.embed(spectra)
    assert len(table) == 3 and np.isfinite(table.z).all()


def test_faint_spectra_get_broad_latents_and_a_flag(model):
    response = acis.response("BI", 2012.0)
    spectra = []
    for n in (0, 1, 4, 5):
        counts = np.zeros(1024)
        counts[100 : 100 + n] = 1.0
        off = Spectrum(np.zeros(1024), 1e4, backscale=20.0)
        spectra.append(Spectrum(counts, 1e4, background=off, response=response, meta={"name": f"n{n}"}))
    table = model.embed(spectra)
    flags = [set(str(f).split(",")) for f in table["flags"]]
    assert "no_counts" in flags[0] and "few_counts" in flags[1] and "few_counts" in flags[2]
    assert not flags[3] & {"no_counts", "few_counts"}
    for name in table.colnames:
        if table[name].dtype.kind == "f" and name not in ("ra", "dec", "ess", "mjd"):
            assert np.isfinite(np.asarray(table[name])).all(), name
    assert (table.z_err[0] > 0.5).all()
    # Without a count there is an upper end and no detection.
    assert table["flux_b"][0] <= table["flux_b"][3] and table["flux_b_lolim"][0] < 0.1 * table["flux_b_hilim"][0]


def test_a_spectrum_without_response_is_refused(model):
    with pytest.raises(ResponseError, match="give them with --arf and --rmf"):
        model.embed(Spectrum(np.ones(1024), 1e4, meta={"file": "a.pha"}))


def test_reconstruction_covers_the_channels(model):
    rng = np.random.default_rng(0)
    response = acis.response("FI", 2003.0)
    photons = response.energy_lo**-1.8 * 1e-6
    spectrum = Spectrum(rng.poisson(5e4 * response.fold(photons)).astype(float), 5e4, response=response)
    made = model.reconstruct(spectrum)
    assert made.channels.sum() == made.counts.size == 514
    assert np.all(made.counts_lo <= made.counts_hi) and made.photons.shape == (model.grid.n_energy,)
    assert made.counts.sum() == pytest.approx(spectrum.counts[made.channels].sum(), rel=0.05)
    row = model.embed(spectrum)
    np.testing.assert_allclose(row.z, made.table.z, atol=1e-6)


def test_latents_of_any_shape_are_decoded(model):
    z = np.random.default_rng(2).standard_normal((1030, 2, 8))
    photons = model.decode(z)
    assert photons.shape == (1030, 2, 256)
    # Per bin, of about one photon cm-2 s-1 in 0.5-8 keV.
    inside = (model.grid.energy_mid > 0.5) & (model.grid.energy_mid < 8.0)
    np.testing.assert_allclose(photons[..., inside].sum(axis=-1), 1.0, rtol=0.05)
    np.testing.assert_allclose(model.decode(z[1027, 1]), photons[1027, 1], rtol=1e-4)
    with pytest.raises(ParameterError, match=r"shape \(3, 7\) cannot be decoded .* give 8 numbers"):
        model.decode(np.zeros((3, 7)))


def test_tables_are_the_same_made_twice(model):
    rng = np.random.default_rng(1)
    response = acis.response("FI", 2003.0)
    spectrum = Spectrum(rng.poisson(0.2, 1024).astype(float), 1e4, response=response)
    first, again = model.embed(spectrum), model.embed(spectrum)
    assert np.array_equal(first.z, again.z) and first["flux_b"][0] == again["flux_b"][0]


def test_inference_never_imports_torch():
    code = (
        "import sys, numpy as np, xlatent as xl\n"
        "from xlatent.simulate import acis\n"
        "s = xl.Spectrum(np.ones(1024), 1e4, response=acis.response())\n"
        "xl.load_model().embed(s)\n"
        "assert 'torch' not in sys.modules and 'safetensors' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
