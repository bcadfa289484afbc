"""Mutual information: known values, a null that holds, and what is added to other columns."""

import numpy as np
import pytest
from astropy.table import Table
from scipy import stats
from scipy.special import digamma

from xlatent.cli.information import information as command
from xlatent.core.errors import ParameterError, XlatentWarning
from xlatent.core.latents import LatentTable
from xlatent.formats import latent_tables
from xlatent.science import information as module
from xlatent.science.information import estimate_information, mutual_information


def near(*columns):
    return module.build_neighbour_lists(np.column_stack(columns))


def of_all_distances(x, y, condition=None):
    """The estimators as they are written down, from every distance between two sources."""

    def apart(points):
        return np.abs(points[:, None] - points).max(axis=2)

    y = np.where(y[:, None] == y, 0.0, np.inf) if y.dtype.kind == "U" else np.abs(y[:, None] - y)
    x, k = apart(x), module.N_NEIGHBOURS
    if condition is None:
        both, rest = (x, y), digamma(len(x))
        reach = np.sort(np.maximum(x, y), axis=1)[:, k, None]
    else:
        c = apart(condition)
        both = np.maximum(x, c), np.maximum(y, c)
        reach = np.sort(np.maximum(*both), axis=1)[:, k, None]
        rest = np.mean(digamma(np.sum(c < reach, axis=1)))
    return digamma(k) + rest - np.mean(sum(digamma(np.sum(d < reach, axis=1)) for d in both))


@pytest.mark.parametrize("kind", ["numbers", "none", "classes"])
@pytest.mark.parametrize("widths", [(3, 8), (16, 40), (64, 256)])
def test_neighbours_give_what_all_distances_give(normal, kind, widths, monkeypatch):
    monkeypatch.setattr(module, "_WIDTHS", widths)
    a, b, c, d, e = normal[:, :300]
    x, other = np.column_stack([a, 0.3 * b, 0.1 * c]), np.column_stack([a + 0.5 * d, b])
    y = {"numbers": a + e, "none": e, "classes": np.where(e + a > 1.5, "few", "many")}[kind]
    both = np.hstack([x, other])
    assert mutual_information(module.build_neighbour_lists(x), y) == pytest.approx(of_all_distances(x, y), abs=1e-12)
    found = mutual_information(module.build_neighbour_lists(both), y, module.build_neighbour_lists(other))
    assert found == pytest.approx(of_all_distances(x, y, other), abs=1e-12)
    half = np.arange(1, 300, 2)
    found = mutual_information(
        module.build_neighbour_lists(both).subset(half), y[half], module.build_neighbour_lists(other).subset(half)
    )
    assert found == pytest.approx(of_all_distances(x[half], y[half], other[half]), abs=1e-12)


@pytest.fixture(scope="module")
def normal():
    """Five independent normal variables of a thousand sources."""
    return np.random.default_rng(0).standard_normal((5, 1000))


@pytest.fixture(scope="module")
def quick():
    """Few exchanges."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "N_PERMUTATIONS", 30)
        yield


@pytest.mark.parametrize("r", [0.0, 0.5, 0.9])
def test_of_two_normal_variables(normal, r):
    a, b = normal[0], r * normal[0] + np.sqrt(1 - r**2) * normal[1]
    expected = -0.5 * np.log(1 - r**2)
    assert abs(mutual_information(near(a), b) - expected) < 0.05
    # Of any monotonic function of them, too.
    scores = [module._normal_scores(np.exp(3 * x), np.random.default_rng(0)) for x in (a, b)]
    assert abs(mutual_information(near(scores[0]), scores[1]) - expected) < 0.05


def test_conditional_of_normal_variables(normal):
    common, e, f, *_ = normal
    a, b = common + e, common + f
    # r = 1/2 before the common part is known, and none after.
    assert abs(mutual_information(near(a), b) - 0.1438) < 0.06
    assert abs(mutual_information(near(a, common), b, near(common))) < 0.05
    # Two independent variables tell of each other once their sum is known.
    sum_known = mutual_information(near(e, e + f + common), f, near(e + f + common))
    assert abs(sum_known - -0.5 * np.log(1 - 0.25)) < 0.06


def test_of_classes(normal):
    kind = np.repeat(["a", "b"], 500)
    apart = normal[0] + np.where(kind == "a", -20, 20)
    assert abs(mutual_information(near(apart), kind) - np.log(2)) < 0.01
    assert abs(mutual_information(near(normal[0]), kind)) < 0.05
    # One standard deviation apart on each side: log 2 less the mean entropy of the class once x is known.
    x = np.linspace(-8, 8, 4001)
    p = 1 / (1 + np.exp(-2 * x))
    left = np.trapezoid((stats.norm.pdf(x, 1) + stats.norm.pdf(x, -1)) / 2 * stats.entropy([p, 1 - p]), x)
    close = normal[0] + np.where(kind == "a", -1, 1)
    assert abs(mutual_information(near(close), kind) - (np.log(2) - left)) < 0.05


def latents(z0, z1, n=300):
    z = 0.01 * np.random.default_rng(9).standard_normal((n, 8))
    z[:, 0], z[:, 1] = z0[:n], z1[:n]
    return z


def test_what_latents_add(latent_table, normal, quick):
    a, b, c, noise, other = normal[:, :300]
    table = latent_table(latents(a, b), hard=a, of_a=a + 0.3 * c, of_b=b + 0.5 * c, none=noise, again=other)
    results = estimate_information(table, ["of_a", "of_b", "none"], ["hard"])
    assert list(results["of"]) == ["z", "hard", "z given hard"] * 3
    found = {(row["column"], row["of"]): row for row in results}
    for of in ("z", "hard"):
        assert found["of_a", of]["p"] < 1e-6
    assert found["of_a", "z given hard"]["q"] > 0.01
    assert found["of_b", "hard"]["q"] > 0.01
    assert found["of_b", "z given hard"]["q"] < 1e-3
    assert min(found["none", of]["q"] for of in ("z", "hard", "z given hard")) > 0.01
    expected = -0.5 * np.log(1 - 1 / 1.09)
    assert abs(found["of_a", "hard"]["mi"] - expected) < 0.15
    for row in results:
        assert row["mi_lolim"] < row["mi"] < row["mi_hilim"]
        assert 0.02 < row["sensitivity"] < 0.3
    np.testing.assert_allclose(results["q"], stats.false_discovery_control(results["p"]))
    assert (results["q"] >= results["p"]).all()


def test_null_is_no_more_often_rejected_than_stated(latent_table, quick):
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((2, 80))
    columns = {f"c{i}": rng.standard_normal(80) for i in range(40)}
    results = estimate_information(latent_table(latents(a, b, 80), **columns), list(columns))
    assert stats.kstest(results["p"], "uniform").pvalue > 0.001
    assert min(results["q"]) > 0.01


def test_error_is_that_of_repeated_samples(quick):
    rng = np.random.default_rng(5)
    estimates, errors = [], []
    for _ in range(30):
        a = rng.standard_normal(150)
        b = module._normal_scores(a + rng.standard_normal(150), rng)
        x = near(a)
        estimates.append(mutual_information(x, b))
        errors.append(
            module.half_sample_error(lambda rows, x=x, b=b: mutual_information(x.subset(rows), b[rows]), np.arange(150))
        )
    assert 0.6 < np.mean(errors) / np.std(estimates) < 1.7


def test_equal_values(latent_table, normal, quick):
    # Probabilities given to one decimal, and sources with the same latents.
    z0 = np.round(normal[0], 1)
    table = latent_table(latents(z0, 0 * z0) * (np.arange(8) == 0), p=np.round(normal[1, :300], 0))
    with pytest.warns(XlatentWarning, match="counts once"):
        results = estimate_information(table, ["p"])
    assert np.isfinite(results["mi"][0])
    assert results["p"][0] > 0.001


def test_one_measurement_under_many_names_tells_nothing(latent_table, normal, quick):
    # A tenth of the rows three times: as many as in a table of the CSC, where blends share their values.
    rows = np.append(np.arange(240), np.repeat(np.arange(30), 2))
    table = latent_table(latents(*normal[:2])[rows], value=normal[2, rows])
    with pytest.warns(XlatentWarning, match="60 of 300 sources"):
        results = estimate_information(table, ["value"])
    assert results["n_sources"][0] == 240 and results["p"][0] > 0.01


def test_classes_and_small_ones(latent_table, normal, quick):
    kind = np.repeat(["a", "b", "c", ""], [140, 140, 2, 18])
    table = latent_table(
        latents(np.where(kind == "a", -3, 3) + normal[0, :300], normal[1]), kind=kind, h=normal[2, :300]
    )
    with pytest.warns(XlatentWarning, match="left out are c"):
        results = estimate_information(table, ["kind"], ["h"])
    assert set(results["n_sources"]) == {280}
    assert results["p"][0] < 1e-6 < results["p"][1]
    assert results["p"][2] < 1e-6
    assert abs(results["mi"][0] - np.log(2)) < 0.1


def test_a_source_counts_once_by_its_best_row(latent_table, normal, quick):
    z = np.repeat(latents(normal[0], normal[1], 100), 2, axis=0)
    z[1::2, 0] = 0.0
    errors = np.tile([[0.1], [0.5]], (100, 8))
    names = [f"s{i // 2}" for i in range(200)]
    rows = {"source": names, "value": np.repeat(normal[0, :100], 2)}
    result = estimate_information(latent_table(z, errors, **rows), ["value"])[0]
    assert result["n_sources"] == 100
    assert result["mi"] > 1.0


def test_columns_of_no_use(latent_table, normal):
    table = latent_table(latents(*normal[:2]), same=np.ones(300), few=np.where(np.arange(300) < 9, 1.0, np.nan))
    with pytest.warns(XlatentWarning), pytest.raises(ParameterError, match="no column has 50 sources"):
        estimate_information(table, ["same", "few"])
    with pytest.raises(ParameterError, match="no column colour"):
        estimate_information(table, ["colour"])
    with pytest.raises(ParameterError, match="name should hold numbers"):
        estimate_information(table, ["same"], ["name"])
    with pytest.warns(XlatentWarning), pytest.raises(ParameterError, match="give more sources"):
        estimate_information(LatentTable({"value": np.zeros(0)}), ["value"])


def test_some_of_very_many_sources(latent_table, normal, quick, monkeypatch):
    monkeypatch.setattr(module, "MAX_SOURCES", 60)
    results = estimate_information(latent_table(latents(*normal[:2]), value=normal[0, :300]), ["value"])
    assert list(results["n_sources"]) == [60]


@pytest.mark.slow
def test_real_sources(labelled, quick):
    with pytest.warns(XlatentWarning, match="HMXB"):
        results = estimate_information(labelled, ["class"], ["measured_hm", "measured_ms"])
    assert results["p"][0] < 1e-6  # z tells classes apart
    assert results["mi"][0] > 0.1


def test_command(latent_table, normal, run, quick, tmp_path):
    table, output = tmp_path / "t.parquet", tmp_path / "r.csv"
    a, b, c = normal[:3, :100]
    latent_tables.write(latent_table(latents(a, b, 100), x=a, hard_hm=c, hard_hs=b, hard_ms=c + b), table)
    result = run(command, table, "--with", "x", "--output", output)
    assert result.exit_code == 0, result.output
    written = Table.read(output)
    assert list(written["of"]) == ["z", "hard_hm, hard_hs, hard_ms", "z given hard_hm, hard_hs, hard_ms"]
    assert written["p"][0] < 1e-3
    assert len(Table.read(_alone(run, table, tmp_path))) == 1


def _alone(run, table, folder):
    path = folder / "alone.ecsv"
    assert run(command, table, "--with", "x", "--beside", "", "--output", path).exit_code == 0
    return path
