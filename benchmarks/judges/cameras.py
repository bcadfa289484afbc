"""Real cameras: responses as Sherpa folds with them, backgrounds as they were measured, counts drawn beside them."""

import logging
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

from judges.families import rebinned
from xlatent.core.spectrum import Response, Spectrum
from xlatent.formats import ogip_spectrum
from xlatent.formats.ogip_response import ResponseReader

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
EXPOSURE = 3e4  # s; counts are what is chosen, so that this only sets the scale of the fluxes
BAND = (0.5, 8.0)  # keV: counts are the source's in channels that reach into it
SMOOTHING = 0.03  # of the energy: a measured background is noisy, and its mean is what is needed
RATIOS, SCALES = (1e-3, 1.0), (0.01, 0.5)  # background by source, and background scale
WITHOUT = 0.25  # share of spectra that have no background

# Name: ARF, RMF, measured background of the camera, all under shared/data.
_ACIS_I, _ACIS_S = "spectra/cdfs__179/cdfs4Ms_179_bkg.pi", "spectra/csc__acisf04736_000n001_r0079_pha3/"
_ACIS_S += "acisf04736_000N001_r0079_pha3.fits"
ACIS = {
    "ACIS-I 1999": ("responses/acisi_aimpt_cy0.arf", "responses/acisi_aimpt_cy0.rmf.gz", _ACIS_I),
    "ACIS-I 2016": ("responses/acisi_aimpt_cy18.arf", "responses/acisi_aimpt_cy18.rmf.gz", _ACIS_I),
    "ACIS-S 2013": ("responses/aciss_aimpt_cy15.arf", "responses/aciss_aimpt_cy15.rmf.gz", _ACIS_S),
    "ACIS-S 2001": (
        "spectra/csc__acisf01575_001n001_r0085_pha3/acisf01575_001N001_r0085_arf3.fits.gz",
        "spectra/csc__acisf01575_001n001_r0085_pha3/acisf01575_001N001_r0085_rmf3.fits.gz",
        _ACIS_S,
    ),
    "ACIS-I 2005, 13' off": (
        "spectra/csc__acisf04737_000n001_r0035_pha3/acisf04737_000N001_r0035_arf3.fits",
        "spectra/csc__acisf04737_000n001_r0035_pha3/acisf04737_000N001_r0035_rmf3.fits.gz",
        _ACIS_I,
    ),
    "ACIS-S 2007": ("spectra/3c-186__9774/9774.arf", "spectra/3c-186__9774/9774.rmf.gz", _ACIS_S),
}
OTHERS = {
    "XMM pn": (
        "responses/xmm-pn-thin.arf", "responses/xmm-pn-thin.rmf.gz", "missions/xmm-pn__psr-j0855-4644/bkg.pha.gz"
    ),
    "XMM MOS1": (
        "missions/xmm-mos1__psr-j0855-4644/src.arf", "missions/xmm-mos1__psr-j0855-4644/src.rmf.gz",
        "missions/xmm-mos1__psr-j0855-4644/bkg.pha.gz",
    ),
    "eROSITA": (
        "responses/erosita-tm0.arf.gz", "responses/erosita-tm0.rmf.gz", "missions/erosita-tm0__efeds-agn/bkg.pha"
    ),
    "NICER": ("responses/nicer-xti.arf", "responses/nicer-xti.rmf.gz", None),
    "Swift WT": (
        "missions/swift-wt__grb-110731a/xrt.arf", "missions/swift-wt__grb-110731a/xrt.rmf.gz",
        "missions/swift-wt__grb-110731a/xrt_bkg.pha",
    ),
    "Swift PC": (
        "other-missions/swift-xrt__2m02594633/target_sr.arf",
        "other-missions/swift-xrt__2m02594633/swxpc0to12s6_20130101v014.rmf.gz", None,
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Camera:
    """A camera's calibration, twice: as Sherpa reads it, to make counts, and as xlatent does, to be told with them.

    Attributes
    ----------
    name : str
    arf, rmf : sherpa.astro.data.DataARF, DataRMF
    response : Response
    background : array [n_chan] or None
        Shape of the measured background, of sum 1 in 0.5-8 keV.
    """

    name: str
    arf: Any
    rmf: Any
    response: Response
    background: Float[np.ndarray, " n_chan"] | None

    @property
    def inside(self) -> np.ndarray:
        """Channels that reach into 0.5-8 keV."""
        return (self.response.chan_hi > BAND[0]) & (self.response.chan_lo < BAND[1])

    def fold(self, photons: Float[np.ndarray, " n_bins"]) -> Float[np.ndarray, " n_chan"]:
        """Counts a second from photons cm⁻² s⁻¹ on `families.EDGES`, by Sherpa."""
        edges = np.append(self.rmf.energ_lo, self.rmf.energ_hi[-1])
        return self.rmf.apply_rmf(self.arf.specresp * rebinned(photons, edges))


@cache
def camera(name: str) -> Camera:
    """Read a camera of `ACIS` or `OTHERS`."""
    logging.getLogger("sherpa").setLevel(logging.CRITICAL)
    from sherpa.astro import io

    arf, rmf, background = (ACIS | OTHERS)[name]
    response = ResponseReader().read(DATA / rmf, DATA / arf).response
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Swift's energies begin at 0
        theirs = io.read_arf(str(DATA / arf)), io.read_rmf(str(DATA / rmf))
    shape = None if background is None else _background(DATA / background, response)
    return Camera(name, *theirs, response, shape)


def _background(path: Path, response: Response) -> Float[np.ndarray, " n_chan"]:
    measured = ogip_spectrum.read(path, arf="none", rmf="none")
    counts = (measured.background or measured).counts
    middle = 0.5 * (response.chan_lo + response.chan_hi)
    width = float(np.median(np.diff(middle)))
    smooth = gaussian_filter1d(counts, SMOOTHING * np.mean(BAND) / width, mode="nearest")
    return smooth / smooth[(response.chan_hi > BAND[0]) & (response.chan_lo < BAND[1])].sum()


def observe(
    rng: np.random.Generator,
    by: Camera,
    photons: Float[np.ndarray, " n_bins"],
    counts: float,
    name: str = "",
    background: bool = True,
) -> tuple[Spectrum, float]:
    """Observe a source once.

    Parameters
    ----------
    rng : numpy.random.Generator
    by : Camera
    photons : array [n_bins]
        On `families.EDGES`, of any norm.
    counts : float
        Expected of the source in channels of 0.5-8 keV.
    name : str
        Of the spectrum.
    background : bool
        Whether three in four spectra, where the camera's is known, have one: 0.001 to 1 times the source, measured in
        a region 2 to 100 times as large.

    Returns
    -------
    spectrum : Spectrum
    amplitude : float
        By which ``photons`` are to be multiplied for photons cm⁻² s⁻¹.
    """
    rate = by.fold(photons)
    amplitude = counts / rate[by.inside].sum() / EXPOSURE
    expected = rate * amplitude * EXPOSURE
    return observed(rng, by, expected, counts, name, background), amplitude


def observed(
    rng: np.random.Generator,
    by: Camera,
    expected: Float[np.ndarray, " n_chan"],
    counts: float,
    name: str = "",
    background: bool = True,
) -> Spectrum:
    """Draw counts of a source that is expected to give ``expected`` [n_chan]; the rest as in `observe`."""
    meta = {"name": name}
    if not background or by.background is None or rng.random() < WITHOUT:
        return Spectrum(rng.poisson(expected).astype(float), EXPOSURE, response=by.response, meta=meta)
    ratio, scale = (float(np.exp(rng.uniform(*np.log(limits)))) for limits in (RATIOS, SCALES))
    behind = counts * ratio * by.background
    off = Spectrum(rng.poisson(behind / scale).astype(float), EXPOSURE, backscale=1.0 / scale)
    return Spectrum(
        rng.poisson(expected + behind).astype(float), EXPOSURE, backscale=1.0, background=off, response=by.response,
        meta=meta,
    )  # fmt: skip
