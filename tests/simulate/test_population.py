from pathlib import Path

import numpy as np
import pytest

from xlatent.core.errors import ParameterError
from xlatent.core.grid import ModelGrid
from xlatent.simulate import population

EDGES = ModelGrid().energy


def test_a_seed_gives_the_same_sources():
    first = population.draw(np.random.default_rng(3), 50)
    again = population.draw(np.random.default_rng(3), 50)
    other = population.draw(np.random.default_rng(4), 50)
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert not np.array_equal(first["nh"], other["nh"])


def test_every_family_has_a_finite_positive_spectrum_of_one_photon():
    rows = population.draw(np.random.default_rng(0), 2000)
    assert set(rows["family_1"]) == set(range(len(population.FAMILIES)))
    flux = population.spectra(EDGES, rows)
    mid = 0.5 * (EDGES[1:] + EDGES[:-1])
    assert np.isfinite(flux).all() and (flux > 0).all()
    np.testing.assert_allclose(flux[:, (mid > 0.5) & (mid < 8.0)].sum(axis=1), 1.0, rtol=1e-6)


def test_each_row_keeps_its_place():
    # Sources are computed family by family; row 7 alone must equal row 7 among all.
    rows = population.draw(np.random.default_rng(1), 40)
    together = population.spectra(EDGES, rows)
    for i in (0, 7, 39):
        alone = population.spectra(EDGES, {key: value[i : i + 1] for key, value in rows.items()})
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-6)


def test_numpy_and_torch_agree():
    torch = pytest.importorskip("torch")
    rows = population.draw(np.random.default_rng(2), 64)
    wanted = population.spectra(EDGES, rows)
    found = population.spectra(torch.as_tensor(EDGES), rows)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)


def test_the_population_is_as_broad_as_promised():
    rows = population.draw(np.random.default_rng(5), 20000)
    assert rows["nh"].min() < 0.02 and rows["nh_1"].max() > 100.0
    assert rows["gamma_1"].min() < -4.0 and rows["gamma_1"].max() > 4.5
    assert rows["redshift"].max() > 3.0 and np.mean(rows["redshift"] == 0) > 0.4
    assert 0.4 < np.mean(rows["fraction"] < 1.0) < 0.6
    assert set(rows["class"]) == set(range(len(population.CLASSES)))


def test_half_of_the_population_is_continuum_without_a_narrow_line():
    rows = population.draw(np.random.default_rng(6), 20000)
    hot = [population.FAMILIES.index(name) for name in ("plasma", "ionising")]
    plasma = np.isin(rows["family_1"], hot) | (np.isin(rows["family_2"], hot) & (rows["fraction"] < 1.0))
    assert np.mean(~plasma & ~rows["line_ew"].any(axis=1)) > 0.5
    assert sum(kind.share for kind in population.POPULATION.values()) == pytest.approx(1.0)


def test_shares_of_classes_can_be_changed():
    rows = population.draw(np.random.default_rng(7), 1000, {"agn": 3.0, "star": 1.0})
    names = np.array(population.CLASSES)[rows["class"]]
    assert set(names) == {"agn", "star"} and 0.7 < np.mean(names == "agn") < 0.8
    assert (rows["redshift"][names == "star"] == 0.0).all()
    for wrong, named in (({"quasar": 1.0}, "quasar"), ({"agn": -1.0}, "negative"), ({}, "positive")):
        with pytest.raises(ParameterError, match=named):
            population.draw(np.random.default_rng(7), 10, wrong)


def test_iron_and_edges_stand_at_the_redshift_of_the_source():
    rows = population.draw(np.random.default_rng(8), 20000, {"agn": 1.0})
    assert np.isin((rows["line_energy"][:, 0] * (1.0 + rows["redshift"])).round(6), [6.4, 6.7, 6.97]).all()
    one = {name: values[:1].copy() for name, values in rows.items()}
    one |= {"redshift": np.array([1.0]), "edge_depth": np.zeros((1, 2))}
    without = population.spectra(EDGES, one)[0]
    with_edge = population.spectra(EDGES, one | {"edge_depth": np.array([[1.0, 0.0]])})[0]
    ratio = with_edge / without
    fall = EDGES[1:-1][np.argmin(np.diff(np.log(ratio)))]
    assert fall == pytest.approx(0.7393 / 2.0, rel=0.02)


def test_the_page_has_every_class_with_its_share():
    page = (Path(__file__).parents[2] / "docs" / "population.md").read_text()
    for name, kind in population.POPULATION.items():
        assert f"| `{name}` | {100 * kind.share:.0f} % |" in page
