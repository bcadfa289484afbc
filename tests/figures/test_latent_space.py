"""Figures of latent space: every row is there once, with its error, in the colour of its value."""

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.path import Path

from xlatent.core.errors import ParameterError
from xlatent.core.latents import LatentTable
from xlatent.figures import latent_space
from xlatent.figures.latent_space import plot_direction, plot_latents, plot_track
from xlatent.figures.style import save


def made(n, seed=0, **columns):
    rng = np.random.default_rng(seed)
    root = 0.2 * rng.normal(size=(n, 8, 8))
    covariance = root @ root.swapaxes(1, 2) + 0.01 * np.eye(8)
    names = {"name": [f"a_$source {i}" for i in range(n)]}
    return LatentTable.from_posterior(rng.normal(size=(n, 8)), covariance, names | columns)


def ellipses(ax):
    return [path.vertices for shown in ax.collections if type(shown) is PolyCollection for path in shown.get_paths()]


def points(ax):
    lines = [line.get_xydata() for line in ax.lines if line.get_linestyle() == "None"]
    return np.concatenate([*lines, *(shown.get_offsets() for shown in ax.collections if len(shown.get_offsets()) > 1)])


def test_an_ellipse_holds_68_per_cent_of_the_posterior():
    table = made(1)
    ax = plot_latents(table, (2, 5))
    [outline] = ellipses(ax)
    draws = np.random.default_rng(1).multivariate_normal(table.z[0], table.covariance[0], 20000)[:, [2, 5]]
    assert Path(outline).contains_points(draws).mean() == pytest.approx(0.6827, abs=0.01)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$z_2$", "$z_5$")
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    assert left < outline[:, 0].min() and outline[:, 0].max() < right
    assert low < outline[:, 1].min() and outline[:, 1].max() < high


@pytest.mark.parametrize("colour", [None, "crimson", "log_flux_b", "class"])
@pytest.mark.parametrize("n", [30, 1000])
def test_every_row_is_drawn_once(tmp_path, n, colour):
    flux = np.where(np.arange(n) % 7 == 0, np.nan, -13.0 - 0.1 * np.arange(n))
    classes = np.resize(["AGN", "CV", "", "NS"], n)
    table = made(n, log_flux_b=flux, **{"class": classes})
    ax = plot_latents(table, (0, 1), colour=colour)
    found = points(ax)
    if n > latent_space.MAX_ELLIPSES:
        assert not ellipses(ax) and ax.texts[0].get_text() == "median error, 1σ"
        found = found[:-1] if colour is None or colour == "crimson" else found
        for place in table.z[:, :2]:
            assert np.isclose(found, place).all(axis=1).sum() == 1
    else:
        assert len(ellipses(ax)) == len(found) == n
        assert np.allclose(np.sort(found, axis=0), np.sort(table.z[:, :2], axis=0))
    save(ax, tmp_path / "f.png")


def test_classes_have_a_legend_with_numbers_and_the_rarest_is_on_top():
    ax = plot_latents(made(9, **{"class": ["AGN"] * 5 + ["CV"] * 2 + [""] * 2}), colour="class")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["no class", "AGN (5)", "CV (2)"]
    order = {line.get_label(): line.get_zorder() for line in ax.lines}
    assert order["no class"] < order["AGN (5)"] < order["CV (2)"]


def test_more_rows_than_points_are_counted():
    n = latent_space.MAX_POINTS + 1
    table = LatentTable.from_posterior(
        np.random.default_rng(0).normal(size=(n, 8)), np.tile(np.eye(8), (n, 1, 1)), {"name": [""] * n}
    )
    ax = plot_latents(table)
    assert sum(shown.get_array().sum() for shown in ax.collections if shown.get_array() is not None) == n


def test_rows_without_latents_are_left_out():
    table = made(5)
    z = table.z
    z[2] = np.nan
    ax = plot_latents(LatentTable.from_posterior(z, table.covariance, {"name": list("abcde")}), labels="name")
    assert len(ellipses(ax)) == 4 and [text.get_text() for text in ax.texts] == list("abde")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dims": (0, 8)}, "two different latents from 0 to 7"),
        ({"dims": (1, 1)}, "two different latents"),
        ({"colour": "clas"}, "neither a column of the table nor a colour"),
        ({"colour": [1.0, 2.0]}, "one value for each of 3 rows"),
        ({"labels": "nane"}, "no such column"),
        ({"labels": ["a"]}, "one value for each of 3 rows"),
    ],
)
def test_mistakes_are_told(options, words):
    with pytest.raises(ParameterError, match=words):
        plot_latents(made(3), **options)


def test_a_track_follows_time_in_the_two_latents_that_move_most():
    z = np.zeros((3, 8))
    z[:, 4], z[:, 6] = [3.0, 1.0, 2.0], [0.0, 5.0, 1.0]
    table = LatentTable.from_posterior(z, np.tile(0.1 * np.eye(8), (3, 1, 1)), {"name": ["a"] * 3})
    ax = plot_track(table, np.array([3.0, 1.0, 2.0]), title="a $source")
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("$z_4$", "$z_6$", "a $source")
    assert [(text.get_text(), *text.xy) for text in ax.texts] == [("1", 1.0, 5.0), ("2", 2.0, 1.0), ("3", 3.0, 0.0)]
    assert len(ellipses(ax)) == 3
    assert plot_track(table, dims=(7, 1)).get_xlabel() == "$z_7$"
    with pytest.raises(ParameterError, match="none of these has them"):
        plot_track(LatentTable.from_posterior(np.nan * z, table.covariance, {"name": ["a"] * 3}))


def test_a_direction_is_drawn_with_its_highest_point_at_one():
    energy = np.geomspace(0.3, 10.0, 60)
    values = np.array([-1.0, 0.5, 2.0])
    ax = plot_direction(energy, energy[:-1] ** values[:, None], values, Figure().add_subplot())
    inside = (ax.lines[0].get_xdata() > 0.5) & (ax.lines[0].get_xdata() < 8.0)
    assert [line.get_ydata()[inside].max() for line in ax.lines] == [1.0] * 3
    assert [line.get_label() for line in ax.lines] == ["a = −1", "a = +0.5", "a = +2"]
    with pytest.raises(ParameterError, match="shape"):
        plot_direction(energy, np.ones((3, 60)), values)
