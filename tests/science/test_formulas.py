"""Formulas that are known, and none where there is nothing to be found."""

import sys

import numpy as np
import pytest

from xlatent.core.errors import ParameterError, XlatentError, XlatentWarning
from xlatent.core.latents import LatentTable
from xlatent.science import formulas as science
from xlatent.science.formulas import find_formulas

N = 400


@pytest.fixture(scope="module", autouse=True)
def short_search():
    """As long as these formulas need, not as long as real ones do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(science, "_EVALUATIONS", 6000)
        patch.setattr(science, "_POPULATION", 100)
        yield


@pytest.fixture(scope="module")
def table() -> LatentTable:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((N, 8))
    share = rng.dirichlet(np.ones(3), N).T
    z[:, 1] = 2.0 * share[2] - 1.0
    amplitude = 10 ** rng.uniform(-15, -12, N)
    columns = {f"flux_{band}": amplitude * part for band, part in zip("smh", share, strict=True)}
    columns |= {
        "name": [f"s{i}" for i in range(N)],
        "flux_b": amplitude,
        "hard": np.tanh(0.8 * z[:, 0] - 0.3),
        "noise": rng.standard_normal(N),
        "nh": 10 ** (1.5 * z[:, 2]),
        "holes": np.where(rng.random(N) < 0.5, np.nan, 3.0 * z[:, 4]),
        "flat": np.ones(N),
    }
    return LatentTable.from_posterior(z, np.tile(0.01 * np.eye(8), (N, 1, 1)), columns)


pytest.importorskip("pyoperon")


def best(found):
    return found[len(found) - 1]


def test_a_law_is_found_and_scored_as_it_is_printed(table):
    found = find_formulas(table, ["hard"])
    assert best(found)["r2"] > 0.99 and "tanh" in best(found)["formula"] and best(found)["n_sources"] == N // 5
    assert np.all(np.diff(found["length"]) > 0) and np.all(np.diff(found["r2_search"]) > 0)
    # The text alone gives the numbers again.
    names = {f"z{i}": table.z[:, i] for i in range(8)}
    said = eval(best(found)["formula"], {"tanh": np.tanh, "exp": np.exp, "log": np.log, "sqrt": np.sqrt}, names)
    assert 1.0 - np.var(said - table["hard"]) / np.var(table["hard"]) == pytest.approx(best(found)["r2"], abs=0.01)
    assert best(found)["latex"].startswith(r"\mathrm{hard} = ") and "z_{0}" in best(found)["latex"]


def test_what_says_nothing_is_not_written():
    import sympy

    x = sympy.Symbol("x")
    assert str(science._rounded(1.0000001 * (0.70012 * x - 0.3) * sympy.exp(-0.99996 * x) + 2.8e-5, 1e-3)) == (
        "(0.7*x - 0.3)*exp(-x)"
    )
    assert str(science._rounded(0.5 * x + 2.8e-5, 1e-6)) == "0.5*x + 2.8e-5"


def test_a_latent_is_written_in_shares_of_the_flux(table):
    found = find_formulas(table, ["z1"])
    assert best(found)["r2"] > 0.99 and best(found)["latex"].startswith("z_{1} = ")
    assert {"flux_h", "flux_b"} <= set(best(found)["formula"].replace("/", " ").replace("*", " ").split())


def test_a_quantity_over_decades_is_written_in_logarithms(table):
    found = find_formulas(table, ["nh"])
    assert set(found["target"]) == {"log10 nh"} and best(found)["r2"] > 0.999
    assert best(found)["latex"].startswith(r"\log_{10} \mathrm{nh} = ")


def test_noise_has_no_formula_that_holds(table):
    found = find_formulas(table, ["noise"])
    assert all(row["r2"] < 0.05 for row in found)


def test_the_same_seed_gives_the_same_formulas(table):
    first, again = (find_formulas(table, ["hard"], seed=3) for _ in range(2))
    assert list(first["formula"]) == list(again["formula"])


def test_missing_values_and_what_cannot_be_done(table):
    found = find_formulas(table, ["holes"])
    assert best(found)["r2"] > 0.99 and best(found)["n_sources"] < N // 8
    with pytest.warns(XlatentWarning, match="column flat is 1.0 everywhere"):
        assert len(find_formulas(table, ["flat"])) == 0
    with pytest.warns(XlatentWarning, match="needs 50"):
        assert len(find_formulas(table[:10], ["hard"])) == 0
    with pytest.raises(ParameterError, match="no column nowhere"):
        find_formulas(table, ["nowhere"])


def test_without_its_library_one_sentence(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyoperon", None)
    monkeypatch.setitem(sys.modules, "pyoperon.sklearn", None)
    with pytest.raises(XlatentError, match=r"xlatent\[science\]"):
        find_formulas(table, ["hard"])
