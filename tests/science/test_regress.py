"""Regression on latents: known shares of variance, sources kept together, and columns that allow none."""

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table

from xlatent.cli.regress import regress as command
from xlatent.core.errors import ParameterError, ReadError, XlatentWarning
from xlatent.core.latents import LatentTable
from xlatent.formats import latent_tables
from xlatent.science import regress as module
from xlatent.science.regress import REGRESSORS, regress


@pytest.fixture(scope="module")
def z():
    return np.random.default_rng(0).standard_normal((400, 8)) * ([1.0] * 3 + [0.01] * 5)


def by_regressor(results, target):
    return {row["regressor"]: row for row in results if row["target"] == target}


def test_known_shares(latent_table, z):
    rng = np.random.default_rng(1)
    noise = rng.standard_normal(400)
    # Three quarters of the variance of the first follow from z linearly, none of the last.
    half = z[:, 0] + z[:, 1] + z[:, 2] + noise
    table = latent_table(z, linear=half, bent=np.abs(z[:, 0]) - z[:, 1] ** 2, noise=noise)
    results = regress(table, ["linear", "bent", "noise"])
    assert list(results["regressor"]) == list(REGRESSORS) * 3
    linear, bent, nothing = (by_regressor(results, name) for name in ("linear", "bent", "noise"))
    assert abs(linear["linear"]["r2"] - 0.75) < 0.05
    assert linear["linear"]["r2_lolim"] < 0.75 < linear["linear"]["r2_hilim"] + 0.03
    # About sqrt(4 R² (1 - R²)² / n), for a squared correlation coefficient of normal variables.
    assert 0.3 < (linear["linear"]["r2_hilim"] - linear["linear"]["r2_lolim"]) / 2 / 0.0217 < 3
    assert bent["linear"]["r2"] < 0.1
    assert min(bent[name]["r2"] for name in ("neighbours", "boosting")) > 0.7
    assert max(row["r2"] for row in nothing.values()) < 0.05
    assert set(results["n_sources"]) == {400}


def test_sources_are_not_split(latent_table, z):
    # Eight rows a source, alike; what is to be predicted is the source's own and follows from nothing.
    rows = np.repeat(np.arange(50), 8)
    value = np.random.default_rng(2).standard_normal(50)[rows]
    jitter = 1e-4 * np.random.default_rng(3).standard_normal((400, 8))
    split = {"name": [f"spectrum {i}" for i in range(400)], "value": value}
    together = regress(latent_table(z[rows] + jitter, **split, source=[f"s{i}" for i in rows]), ["value"])
    apart = regress(latent_table(z[rows] + jitter, **split), ["value"])
    assert max(together["r2"]) < 0.1
    assert by_regressor(apart, "value")["boosting"]["r2"] > 0.9
    assert set(together["n_sources"]) == {50}


def test_decades_are_taken_in_logarithms(latent_table, z):
    table = latent_table(z, flux=1e-14 * 10.0 ** z[:, 0], flux_below_zero=z[:, 0])
    results = regress(table, ["flux", "flux_below_zero"])
    assert set(results["target"]) == {"log10 flux", "flux_below_zero"}
    assert by_regressor(results, "log10 flux")["linear"]["r2"] == pytest.approx(1.0)


def test_missing_values_and_rows(latent_table, z):
    bad = z.copy()
    bad[3, 2] = np.nan
    value = MaskedColumn(z[:, 0].copy(), mask=np.arange(400) == 4)
    value[5:7] = [np.nan, np.inf]
    flags = ["no_data" if i == 8 else "from_fluxes" for i in range(400)]
    results = regress(latent_table(bad, value=value, flags=flags), ["value"])
    assert set(results["n_rows"]) == {395}


def test_columns_of_no_use(latent_table, z):
    table = latent_table(z, same=np.ones(400), few=np.where(np.arange(400) < 5, z[:, 0], np.nan), good=z[:, 0])
    with pytest.warns(XlatentWarning) as heard:
        results = regress(table, ["same", "few", "good"])
    assert set(results["target"]) == {"good"}
    assert "same is 1.0 everywhere" in str(heard[0].message)
    assert "few has values for 5 sources with latents and needs 20" in str(heard[1].message)
    with pytest.warns(XlatentWarning), pytest.raises(ParameterError, match="no column has 20 sources"):
        regress(table, ["same"])
    with pytest.raises(ParameterError, match="no column colour"):
        regress(table, ["colour"])
    with pytest.raises(ParameterError, match="name should hold numbers and holds"):
        regress(table, ["name"])
    with pytest.warns(XlatentWarning), pytest.raises(ParameterError, match="give more sources"):
        regress(table[:10], ["good"])


def test_a_few_of_very_many_rows(latent_table, z, monkeypatch):
    monkeypatch.setattr(module, "MAX_ROWS", 100)
    assert set(regress(latent_table(z, value=z[:, 0]), ["value"])["n_rows"]) == {100}


@pytest.mark.slow
def test_real_sources(labelled):
    results = regress(labelled, ["measured_ms", "measured_hs"])
    # Latents of band fluxes hold their ratios, as far as the prior lets them.
    for target in ("measured_ms", "measured_hs"):
        assert by_regressor(results, target)["neighbours"]["r2"] > 0.8


def test_command(latent_table, z, run, tmp_path):
    table, other, output = tmp_path / "t.parquet", tmp_path / "other.ecsv", tmp_path / "r.ecsv"
    latent_tables.write(latent_table(z, value=z[:, 0], hard_ms=np.zeros(400)), table)
    Table({"name": [f"source  {i}" for i in range(300)], "value": z[:300, 1]}).write(other)
    result = run(command, table, "--target", "value", "--output", output, "--join", other)
    assert result.exit_code == 0, result.output
    assert "linear" in result.output
    written = Table.read(output)
    assert set(written["n_sources"]) == {300}
    assert by_regressor(written, "value")["linear"]["r2"] == pytest.approx(1.0)
    error = run(command, table, "--target", "value,colour", "--join", other).exception
    assert isinstance(error, ReadError)
    assert "no column colour" in str(error)
    with pytest.warns(XlatentWarning) as heard:
        run(command, table, "--target", "hard_ms")
    assert "computed from the same latents" in str(heard[0].message)


def test_table_of_nothing():
    with pytest.warns(XlatentWarning), pytest.raises(ParameterError, match="no column has"):
        regress(LatentTable({"value": np.zeros(0)}), ["value"])
