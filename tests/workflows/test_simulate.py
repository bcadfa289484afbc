import filecmp

import numpy as np
import pytest
from astropy.table import Table

from xlatent.core.errors import ParameterError
from xlatent.formats import ogip_spectrum
from xlatent.simulate import population
from xlatent.workflows.simulate import TRUTH, observation, simulate


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sim")
    return folder, simulate(3, 11, folder)


def test_what_is_written_is_read_back(written):
    _, paths = written
    rng = np.random.default_rng(11)
    rows = population.draw(rng, 3)
    for i, path in enumerate(paths):
        wanted, _ = observation(rng, {k: v[i : i + 1] for k, v in rows.items()}, f"sim11_{i:03d}")
        found = ogip_spectrum.read(path)
        assert np.array_equal(found.counts, wanted.counts) and found.exposure == pytest.approx(wanted.exposure)
        assert found.background_scale == pytest.approx(wanted.background_scale)
        assert np.array_equal(found.background.counts, wanted.background.counts)
        flux = wanted.response.energy_lo**-1.7
        np.testing.assert_allclose(found.response.fold(flux), wanted.response.fold(flux), rtol=1e-5, atol=1e-9)


def test_the_truth_predicts_the_counts(written):
    folder, paths = written
    truth = Table.read(folder / TRUTH)
    assert list(truth["name"]) == [p.stem for p in paths]
    for path, row in zip(paths, truth, strict=True):
        expected = row["counts"] + row["background"]
        total = ogip_spectrum.read(path).band_counts(0.5, 8.0).total
        assert abs(total - expected) < 6 * np.sqrt(expected) + 1
        assert row["family_1"] in population.FAMILIES


def test_parameters_that_do_not_count_are_blank(written):
    truth = Table.read(written[0] / TRUTH)
    for row in truth:
        if row["family_1"] in ("blackbody", "disk", "bremsstrahlung", "plasma"):
            assert np.isnan(row["gamma_1"]) and np.isfinite(row["kt_1"])
        if row["fraction"] == 1.0:
            assert np.isnan(row["nh_2"])


def test_the_same_seed_writes_the_same_files(written, tmp_path):
    folder, paths = written
    again = simulate(3, 11, tmp_path)
    for first, second in zip(paths, again, strict=True):
        assert filecmp.cmp(first, second, shallow=False)
    assert (tmp_path / TRUTH).read_text() == (folder / TRUTH).read_text()


def test_none_is_not_a_number_of_observations(tmp_path):
    with pytest.raises(ParameterError, match="at least 1, got 0"):
        simulate(0, 1, tmp_path)
