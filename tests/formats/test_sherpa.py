"""Every real spectrum reads as Sherpa 4.19 reads it (values recorded by tests/reference/record_sherpa.py)."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from xlatent.core.errors import XlatentWarning
from xlatent.formats import ogip_spectrum

RECORDED = json.loads((Path(__file__).parents[1] / "reference" / "sherpa.json").read_text())["spectra"]


def moments(values):
    k = np.arange(values.size)
    return [np.sum(values), np.sum(k * values), np.sum(k**2 * values)]


def powerlaw(lo, hi, index=1.7):
    """Photons/cm2/s in each bin for 1 photon/keV/cm2/s at 1 keV."""
    return (lo ** (1 - index) - hi ** (1 - index)) / (index - 1)


def test_all_27_are_recorded():
    assert len(RECORDED) == 27
    assert len({source["name"] for source in RECORDED}) == 27


@pytest.mark.parametrize("expected", RECORDED, ids=[source["name"] for source in RECORDED])
def test_equals_sherpa(expected, shared_data):
    files = {key: shared_data / path if path else "none" for key, path in expected["files"].items()}
    spectrum = ogip_spectrum.read(files.pop("pha"), **files)

    assert moments(spectrum.counts) == expected["counts"]
    assert spectrum.exposure == pytest.approx(expected["exposure"], rel=1e-12)
    if expected["background"] is None:
        assert spectrum.background is None
    else:
        assert moments(spectrum.background.counts) == pytest.approx(expected["background"]["counts"], rel=1e-12)
        assert spectrum.background.exposure == pytest.approx(expected["background"]["exposure"], rel=1e-12)
        assert spectrum.background_scale == pytest.approx(expected["background"]["scale"], rel=1e-12)

    response = spectrum.response
    index = np.linspace(0, response.area.size - 1, 20).astype(int)
    np.testing.assert_allclose([response.area.sum(), *response.area[index]], expected["area"], rtol=1e-6)
    np.testing.assert_allclose([moments(response.chan_lo), moments(response.chan_hi)], expected["bounds"], rtol=1e-9)
    noticed = spectrum.select(0.5, 8.0) | (~spectrum.good & (response.chan_hi > 0.5) & (response.chan_lo < 8.0))
    assert [noticed.sum(), spectrum.counts[noticed].sum()] == expected["notice"]  # Sherpa drops no bad channels
    folded = response.fold(powerlaw(response.energy_lo, response.energy_hi))
    peak = max(expected["folded"])
    assert folded.shape == (len(expected["folded"]),)
    np.testing.assert_allclose(folded, expected["folded"], rtol=1e-6, atol=1e-9 * peak)


def test_headers_alone_find_the_same_files(shared_data):
    """Where the header names the companions, giving none of them changes nothing."""
    for expected in RECORDED:
        if expected["name"] in ("m33__source", "swift-xrt"):  # the two whose headers name no response
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", XlatentWarning)  # dead background paths
            spectrum = ogip_spectrum.read(shared_data / expected["files"]["pha"])
        assert Path(spectrum.response.meta["arf"]) == shared_data / expected["files"]["arf"]
        assert Path(spectrum.response.meta["rmf"]) == shared_data / expected["files"]["rmf"]
        assert (spectrum.background is None) == (expected["background"] is None)
        if spectrum.background is not None:
            assert moments(spectrum.background.counts) == pytest.approx(expected["background"]["counts"], rel=1e-12)
