"""``xlatent catalog embed``: which columns are taken, what is kept of the table, and mistakes in one sentence."""

import numpy as np
import pytest
from astropy import units
from astropy.table import MaskedColumn, Table

from xlatent.formats import latent_tables
from xlatent.infer import photometry_sampler

N = 4
FLUXES = {"s": 2e-14, "m": 2.5e-14, "h": 8e-14}


@pytest.fixture(scope="module", autouse=True)
def small_bank():
    """A small large bank, so that tests begin at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photometry_sampler, "_MANY", 2**14)
        yield


@pytest.fixture
def catalogue() -> Table:
    """Four sources as the CSC describes them; the second has upper limits only, the last nothing."""
    table = Table({"name": [f"2CXO J{i}" for i in range(N)], "ra": np.arange(4.0), "obsid": [7, 8, 9, 10]})
    for band, flux in FLUXES.items():
        value = MaskedColumn([flux, 0.0, 0.3 * flux, 0.0], mask=[False, True, False, True])
        table[f"flux_aper_{band}"] = value
        table[f"flux_aper_lolim_{band}"] = MaskedColumn([0.9 * flux, 0.0, 0.2 * flux, 0.0], mask=[0, 0, 0, 1])
        table[f"flux_aper_hilim_{band}"] = MaskedColumn([1.2 * flux, 0.1 * flux, 0.4 * flux, 0.0], mask=[0, 0, 0, 1])
    return table


def as_errors(table: Table) -> Table:
    """The same with a name of its own for every column, and one error."""
    plain = Table({"name": table["name"]})
    for band in FLUXES:
        plain[f"F{band}"] = table[f"flux_aper_{band}"]
        plain[f"e_F{band}"] = table[f"flux_aper_{band}"] * 0.1
    return plain


COLUMNS = "s=Fs,s_err=e_Fs,m=Fm,m_err=e_Fm,h=Fh,h_err=e_Fh"


def embedded(xlatent, path, *options):
    output = path.with_name("latents.parquet")
    result = xlatent("catalog", "embed", path, "--output", output, *options)
    assert result.exit_code == 0, result.stderr
    return latent_tables.read(output), result


@pytest.mark.parametrize("suffix", [".csv", ".ecsv", ".fits", ".vot", ".parquet"])
def test_csc_columns_in_every_format(xlatent, catalogue, tmp_path, suffix):
    path = tmp_path / f"csc{suffix}"
    if suffix == ".parquet":
        pq = pytest.importorskip("pyarrow.parquet")
        import pyarrow as pa

        pq.write_table(pa.table({name: catalogue[name].tolist() for name in catalogue.colnames}), path)
    else:
        formats = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".fits": "fits", ".vot": "votable"}
        catalogue.write(path, format=formats[suffix])
    table, result = embedded(xlatent, path)
    assert list(table["name"]) == list(catalogue["name"]) and list(table["obsid"]) == [7, 8, 9, 10]
    assert list(table["ra"]) == [0.0, 1.0, 2.0, 3.0]
    flags = [set(text.split(",")) for text in table["flags"]]
    assert flags[0] == {"from_fluxes"} and flags[1] == {"from_fluxes", "not_significant"} and flags[3] == {"no_data"}
    assert result.stdout.startswith(f"4 rows written to {tmp_path / 'latents.parquet'}, 1 without usable data")
    for band, flux in FLUXES.items():
        assert table[f"flux_{band}"][0] == pytest.approx(flux, rel=0.2)
        assert table[f"flux_{band}_hilim"][1] < 0.2 * flux
    assert np.isnan(table["counts"]).all() and np.isnan(table["cstat"]).all()
    assert table.meta["model"] and len(table.meta["model_sha256"]) == 64


def test_named_columns_and_units(xlatent, catalogue, tmp_path):
    plain = as_errors(catalogue)
    path = tmp_path / "plain.ecsv"
    plain.write(path)
    table, _ = embedded(xlatent, path, "--columns", COLUMNS)
    for name in [column for column in plain.colnames if column != "name"]:
        plain[name] = plain[name] * 1e-3
        plain[name].unit = units.W / units.m**2
    plain.write(path, overwrite=True)
    in_si, _ = embedded(xlatent, path, "--columns", COLUMNS)
    np.testing.assert_allclose(in_si.z, table.z, atol=1e-4)
    # Photon fluxes are another thing, and the unit tells.
    assert xlatent("catalog", "embed", path, "--output", tmp_path / "t.fits", "--columns",
                   COLUMNS.replace("s=", "photflux_s=").replace("s_err", "photflux_s_err")).exit_code == 1  # fmt: skip


def test_ratios_without_limits_are_taken_with_a_warning(xlatent, tmp_path):
    path = tmp_path / "ratios.csv"
    Table({"name": ["soft", "hard"], "hard_hm": [-0.5, 0.5], "hard_hs": [-0.7, 0.8], "hard_ms": [-0.3, 0.4]}).write(
        path
    )
    table, result = embedded(xlatent, path)
    assert list(table["flags"]) == ["from_ratios", "from_ratios"]
    assert table["hard_hs"][0] < -0.5 and table["hard_hs"][1] > 0.5
    assert "hard_hs has no limits; its error is taken to be 0.1" in result.stderr


def test_labelled_sources(xlatent, shared_data, tmp_path):
    source = shared_data / "catalogues" / "csc2_labelled_sources.csv"
    some = Table.read(source)[:200]
    some.write(tmp_path / "some.csv")
    table, _ = embedded(xlatent, tmp_path / "some.csv", "--columns", COLUMNS)
    assert len(table) == 200 and list(table["name"]) == list(some["name"])
    assert np.isfinite(table.z).all() and (table.z_err > 0).all()
    few = np.asarray(table["ess"]) < 100
    assert few.mean() <= 0.02 and all("low_ess" in flags for flags in np.asarray(table["flags"])[few])
    well = np.asarray(some["Fb"] / some["e_Fb"]) > 10
    apart = np.abs(np.log10(table["flux_b"] / np.asarray(some["Fb"])))[well]
    assert np.median(apart) < 0.03


MISTAKES = {
    "missing": (COLUMNS.replace("Fs,", "Fsoft,", 1), "has no column Fsoft, it has name, Fs, e_Fs"),
    "key": ("u=Fs", "--columns has 'u=Fs'"),
    "no equals": ("s", "--columns has 's'"),
    "no error": ("s=Fs", "Fs has no error; name its column with flux_s_err"),
    "no value": ("s_err=e_Fs", "no column for its value"),
    "text": ("s=name,s_err=e_Fs", "column name should hold numbers"),
    "csc": (None, "none of the columns flux_aper_s, photflux_aper_s, hard_hm"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_columns_are_one_sentence(xlatent, catalogue, tmp_path, mistake):
    path, output = tmp_path / "plain.csv", tmp_path / "t.parquet"
    as_errors(catalogue).write(path)
    columns, sentence = MISTAKES[mistake]
    options = () if columns is None else ("--columns", columns)
    result = xlatent("catalog", "embed", path, "--output", output, *options)
    assert result.exit_code in (1, 2) and sentence in result.stderr and result.stderr.count("\n") == 1
    assert not output.exists()


def test_bad_tables_are_one_sentence(xlatent, catalogue, tmp_path):
    def told(path, *options):
        result = xlatent("catalog", "embed", path, "--output", tmp_path / "t.parquet", *options)
        assert result.exit_code in (1, 2) and result.stderr.count("\n") == 1, result.stderr
        return result.stderr

    plain = as_errors(catalogue)
    plain["e_Fm"][2] = -1e-15
    plain.write(tmp_path / "negative.csv")
    assert "column e_Fm should hold errors and is negative in row 3" in told(
        tmp_path / "negative.csv", "--columns", COLUMNS
    )
    plain[:0].write(tmp_path / "empty.csv")
    assert "the table has no rows" in told(tmp_path / "empty.csv", "--columns", COLUMNS)
    assert "there is no such file" in told(tmp_path / "absent.csv")
    (tmp_path / "table.txt").write_text("a b\n")
    assert "suffix '.txt'" in told(tmp_path / "table.txt")
    (tmp_path / "broken.fits").write_bytes(b"SIMPLE  =")
    assert "is not a readable .fits table" in told(tmp_path / "broken.fits")
    catalogue.remove_column("flux_aper_hilim_m")
    catalogue.write(tmp_path / "limits.ecsv")
    assert "no column flux_aper_hilim_m" in told(tmp_path / "limits.ecsv")
    output = xlatent("catalog", "embed", tmp_path / "negative.csv", "--output", tmp_path / "t.txt")
    assert output.exit_code == 2 and "suffix '.txt'" in output.stderr
    model = xlatent("catalog", "embed", tmp_path / "limits.ecsv", "--output", tmp_path / "t.fits", "--model", "nowhere")
    assert model.exit_code in (1, 2) and model.stderr.count("\n") == 1


def test_values_outside_their_limits_are_told(xlatent, catalogue, tmp_path):
    catalogue["flux_aper_hilim_s"][0] = 0.5 * catalogue["flux_aper_s"][0]
    catalogue.write(tmp_path / "odd.ecsv")
    table, result = embedded(xlatent, tmp_path / "odd.ecsv")
    assert "1 values of flux_aper_s lie outside their limits" in result.stderr
    assert table["flux_s"][0] == pytest.approx(FLUXES["s"], rel=0.2)
