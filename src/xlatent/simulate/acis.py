"""A Chandra ACIS response (effective area and redistribution) computed from short tables of numbers.

The area is the product of mirror, off-axis vignetting, molecular contaminant, optical blocking filter, dead layer and
the chance to be absorbed in the depleted silicon; each factor is published physics with a few numbers in it.
Attenuation coefficients, filter thickness, absorption edges, escape and fluorescence energies are published values.
The mirror area above 1.6 keV, dead layers, depletion depths, contaminant columns up to 2013, vignetting, line widths
and the weak components of the line-spread function were adjusted to real ARFs and RMFs (calibration products, not
source spectra), named at each table; contaminant columns after 2013 carry the measured growth on and are the least
certain numbers here. docs/acis.md shows how well the result fits.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy import sparse
from scipy.special import ndtr

from xlatent.core.errors import ParameterError
from xlatent.core.spectrum import Response

Chip = Literal["FI", "BI"]
Real = int | float

# fmt: off
# Photoelectric mass attenuation, (keV, cm2/g), from Elam, Ravel & Sieber 2002 (Rad. Phys. Chem. 63, 121) as xraydb 4.5
# gives it: points a factor 1.2-1.9 apart and one on each side of the K edge, for log-log interpolation good to 5 %. The
# edges of O and F are moved to 0.536 and 0.691 keV, where the real ARFs have them (bound atoms; free: 0.543, 0.697).
ATTENUATION: dict[str, tuple[list[float], list[float]]] = {
    "C": ([0.1, 0.15, 0.2, 0.2837, 0.2847, 0.35, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 11.5],
          [26680, 10840, 5597, 2494, 47840, 30550, 13510, 5698, 2210, 699.4, 301.7, 89.65, 18.66, 4.241, 1.323]),
    "N": ([0.1, 0.2, 0.3, 0.4094, 0.4104, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 11.5],
          [43190, 8805, 3329, 1580, 27690, 11950, 5744, 3310, 1081, 476, 144.8, 30.87, 7.167, 2.271]),
    "O": ([0.1, 0.2, 0.3, 0.4, 0.535, 0.536, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 11.5],
          [62010, 13230, 4998, 2480, 1240, 19300, 15970, 7929, 4588, 1547, 693.7, 216, 47.2, 11.17, 3.585]),
    "F": ([0.1, 0.2, 0.3, 0.4, 0.6, 0.690, 0.691, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 11.5],
          [86050, 18570, 6998, 3436, 1226, 926, 12850, 9677, 5649, 1977, 903.4, 287.6, 64.31, 15.49, 5.036]),
    "Al": ([0.1, 0.12, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5, 1.559, 1.560, 2.0, 3.0, 5.0, 8.0, 11.5],
           [120900, 117800, 88780, 52820, 22410, 11580, 4315, 2077, 1183, 400.2, 360, 3949, 2261, 786.5, 192.2, 49.51,
            16.81]),
    "Si": ([0.1, 0.12, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5, 1.8384, 1.8394, 2.0, 2.4, 3.0, 5.0, 8.0, 11.5],
           [55680, 100300, 97970, 62800, 27630, 14400, 5442, 2637, 1567, 533.3, 307.3, 3190, 2775, 1819, 976.7, 243.8,
            63.79, 21.89]),
    # Carbon of the contaminant: as C from 0.5 keV up; nearer the edge what the ratio of the ARFs of 2004 and 2013
    # (ObsIDs 4487 and 15043) asks for, flatter than free carbon, as an uneven layer with edge structure makes it.
    "C layer": ([0.1, 0.15, 0.2, 0.2837, 0.2847, 0.31, 0.33, 0.35, 0.4, 0.43, 0.46, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0,
                 8.0, 11.5],
                [26680, 10840, 5597, 2494, 32000, 26000, 22800, 21700, 19800, 17800, 15800, 13510, 5698, 2210, 699.4,
                 301.7, 89.65, 18.66, 4.241, 1.323]),
}

# Area of the four mirror shells on axis, (keV, cm2). Up to 1.5 keV and above 9.5 keV: geometric areas times the
# squared Fresnel reflectivity of iridium (22.4 g/cm3, 3 A rough, optical constants of Chantler 2000, J. Phys. Chem.
# Ref. Data 29, 597, as xraydb gives them) at the shells' grazing angles (51.3, 41.3, 36.4, 27.1 arcmin), scaled to
# agree with the ARFs. From 1.75 to 9.5 keV: a joint fit to 17 real ARFs. The steps are the Ir M edges (2.04, 2.12,
# 2.55, 2.91, 3.17 keV).
MIRROR_ENERGY = [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 1.95, 2.03, 2.06, 2.10, 2.13, 2.20, 2.30, 2.53, 2.57, 2.90,
                 2.93, 3.16, 3.20, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 7.5, 8.0, 8.5, 9.0, 9.5, 10.0, 10.5, 11.0,
                 12.0]
MIRROR_AREA = [773, 764, 756, 751, 753, 752, 715, 684, 666, 511, 380, 345, 348, 400, 405, 388, 411,
               401, 408, 402, 413, 409, 390, 356, 302, 256, 213, 159, 113, 79, 64, 55, 45, 34, 15, 4, 0]

# Off axis the area falls by 1 / (1 + a (theta / 10 arcmin)^1.9): a at (keV), fitted to the ARFs at 3.4 to 15.6 arcmin
# (ObsIDs 1575, 1878, 4736, 4737, 10095) with the Guide's 15 % loss at 10 arcmin and 1.5 keV.
VIGNETTING_ENERGY = [1.5, 3.0, 4.5, 6.0, 7.5, 9.0]
VIGNETTING = [0.18, 0.18, 0.30, 0.64, 0.96, 1.70]
VIGNETTING_POWER = 1.9

# Column densities of the contaminant's elements, micrograms/cm2, at these years, for ACIS-S. It is carbon with some O
# and F (Marshall et al. 2004, SPIE 5165, 497, who found less O in the layer of 2003 than these columns have). 2012.5 -
# 2004.0 and 2013.7 - 2012.5 are differences of the ARFs of ObsIDs 4487, 13903 and 15043, made with CALDB of 2019-2025;
# their zero is the nominal transmission of filter and chip. Before 2004, and between, the columns follow ARFs made in
# 2008-2013, roughly. After 2013 the optical depth at 0.67 keV grows by 0.13 to 0.18 a year, a continuation of the
# growth of 2012-2014: no file tested here constrains it, and at 2024 it may well be off by 20 %.
CONTAMINANT_YEAR = [1999.6, 2000.5, 2002.0, 2004.0, 2006.0, 2008.0, 2010.0, 2012.5, 2013.7, 2016.0, 2018.0, 2020.0,
                    2022.0, 2024.0, 2026.5]
CONTAMINANT: dict[str, list[float]] = {
    "C layer": [0, 22, 44, 60, 73, 83, 94, 112, 120, 141, 168, 196, 224, 252, 286],
    "O": [0, 6, 12, 17, 21, 24, 27, 31, 37, 49, 63, 77, 92, 106, 122],
    "F": [0, 1.5, 3, 5, 6, 7, 8, 9, 12, 17, 22, 27, 32, 37, 43],
}
# ACIS-I over ACIS-S: thicker by about a fifth in the ARFs of 2001-2009 (its sources lie nearer the filter's edge,
# where the layer is thick); after 2013, without a file to tell, less, so that the two become alike.
CONTAMINANT_FI_OVER_BI = [1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.15, 1.12, 1.06, 1.0, 1.0, 1.0, 1.0, 1.0]

# What every photon crosses, g/cm2. Filters: Guide, ch. 6 (ACIS-I 1600 A, ACIS-S 1300 A of aluminium on 2000 A of
# polyimide). Dead layers: gates and oxide of FI chips, 300 A of silicon under BI ones, adjusted to the ARFs by up
# to 35 %.
LAYERS: dict[Chip, dict[str, float]] = {
    "FI": {"Al": 1600e-8 * 2.70, "polyimide": 2000e-8 * 1.42, "Si": 1.33e-4, "O": 3.3e-5},
    "BI": {"Al": 1300e-8 * 2.70, "polyimide": 2000e-8 * 1.42, "Si": 0.07e-4, "O": 1e-6},
}
POLYIMIDE = {"C": 0.691, "N": 0.073, "O": 0.209}  # mass fractions in C22 H10 N2 O5; hydrogen absorbs nothing here
# Depleted silicon in which a photon is seen, g/cm2: 70 um (Guide, ch. 6), and for BI chips 44 um from the ARFs.
DEPLETION: dict[Chip, float] = {"FI": 70e-4 * 2.33, "BI": 44e-4 * 2.33}

# Full width at half maximum, keV, at the readout and what charge-transfer loss adds to it in quadrature at a middling
# row in 2005. FI: the RMF of ObsID 4737 (a row near the readout), and the middle of the RMFs of ObsIDs 1878, 10095
# (four regions) and CDF-S, which differ with the row by 15 % either way. BI: the middle of 14 S3 RMFs of 2001-2013; the
# loss of these chips came with their manufacture and is taken as the same at every row and date.
WIDTH_ENERGY = [0.3, 0.5, 0.7, 1.0, 1.5, 2.5, 4.0, 6.0, 8.0, 11.0]
WIDTH_READOUT: dict[Chip, list[float]] = {
    "FI": [0.049, 0.053, 0.057, 0.063, 0.075, 0.091, 0.113, 0.137, 0.158, 0.185],
    "BI": [0.098, 0.097, 0.094, 0.097, 0.103, 0.123, 0.135, 0.153, 0.169, 0.190],
}
WIDTH_TRANSFER: dict[Chip, list[float]] = {
    "FI": [0.050, 0.053, 0.058, 0.065, 0.074, 0.093, 0.117, 0.148, 0.178, 0.220],
    "BI": [0.0] * 10,
}
# Charge-transfer loss of FI chips is about 1.5e-4 and grows of order 1e-6 a year (Grant et al. 2005, SPIE 5898, 201).
TRANSFER_GROWTH = 0.01

# Line-spread function besides the main peak: fractions of the photons, read from the RMFs of ObsIDs 1878, 4487, 10095
# and 13903. "wide" has 3 times the width of the peak; "shoulder" 1.5 times, 3 sigma below it; "shelf" is flat. Escape
# and fluorescence exist above the Si K edge only, are given at 2.5 keV and fall with energy, escape as this power.
LINE: dict[Chip, dict[str, float]] = {
    "FI": {"escape": 0.0155, "escape_power": 1.15, "fluorescence": 0.0026, "wide": 0.11, "shoulder": 0.010,
           "shoulder_above": 0.010, "shelf": 0.012, "shelf_above": 0.012},
    "BI": {"escape": 0.0149, "escape_power": 0.7, "fluorescence": 0.0002, "wide": 0.005, "shoulder": 0.013,
           "shoulder_above": 0.015, "shelf": 0.002, "shelf_above": 0.009},
}
# fmt: on
SI_EDGE, SI_LINE = 1.839, 1.739  # keV: K edge of silicon, and the energy of its K fluorescence photon

CHANNEL_WIDTH = 0.0146  # keV, of the 1024 PI channels


def effective_area(
    energy: Real | Float[np.ndarray, " *energies"],
    *,
    chip: Chip,
    year: Real | Float[np.ndarray, " *batch"],
    theta: Real | Float[np.ndarray, " *batch"] = 0.0,
) -> Float[np.ndarray, " ..."]:
    """Compute the effective area of mirror, filter and chip.

    Parameters
    ----------
    energy
        Photon energy, keV, any shape; the tables cover 0.3 to 11 keV.
    chip
        "FI", a front-illuminated chip (ACIS-I and most of ACIS-S), or "BI", a back-illuminated one (S1 and S3).
    year
        Date as a decimal year, 1999 to 2027; a number or an array.
    theta
        Distance from the optical axis, arcmin; a number or an array of the shape of `year`.

    Returns
    -------
    Area in cm2, of the shape of `year` or `theta` followed by that of `energy`: ``[n_batch, n_energy]`` for a batch.

    Raises
    ------
    ParameterError
        If the chip is unknown, the year lies outside the mission, or an energy or angle is not possible.

    Notes
    -----
    mirror(E) vignetting(E, theta) exp(-contaminant(E, year) - filter(E) - dead layer(E)) (1 - exp(-mu_Si(E) d))
    at the middle of the aimpoint's chip, whole point-spread function included. Sources of the numbers: at the tables.
    """
    energy = _energies(energy)
    layers = _layers(chip)
    depth = sum(column * _attenuation(material, energy) for material, column in layers.items())
    absorbed = -np.expm1(-DEPLETION[chip] * _attenuation("Si", energy))
    on_axis = np.interp(energy, MIRROR_ENERGY, MIRROR_AREA) * np.exp(-depth) * absorbed
    through_contaminant = np.exp(-contamination_depth(energy, chip=chip, year=year))
    return np.asarray(on_axis * through_contaminant * vignetting(energy, theta))


def contamination_depth(
    energy: Real | Float[np.ndarray, " *energies"], *, chip: Chip, year: Real | Float[np.ndarray, " *batch"]
) -> Float[np.ndarray, " ..."]:
    """Compute the optical depth of the molecular contaminant on the blocking filter.

    Parameters
    ----------
    energy
        Photon energy, keV, any shape.
    chip
        "FI" for the layer on ACIS-I, "BI" for that on ACIS-S.
    year
        Date as a decimal year, 1999 to 2027; a number or an array.

    Returns
    -------
    Optical depth, of the shape of `year` followed by that of `energy`: the sum over C, O and F of column times mass
    attenuation, with the absorption edges of each (0.284, 0.536, 0.691 keV); 0 at launch.

    Raises
    ------
    ParameterError
        If the chip is unknown, the year lies outside the mission, or an energy is not possible.
    """
    energy = _energies(energy)
    _layers(chip)
    dates = _years(year, energy.ndim)
    ratio = np.interp(dates, CONTAMINANT_YEAR, CONTAMINANT_FI_OVER_BI) if chip == "FI" else 1.0
    depth = sum(
        1e-6 * ratio * np.interp(dates, CONTAMINANT_YEAR, columns) * _attenuation(element, energy)
        for element, columns in CONTAMINANT.items()
    )
    return np.asarray(depth)


def vignetting(
    energy: Real | Float[np.ndarray, " *energies"], theta: Real | Float[np.ndarray, " *batch"]
) -> Float[np.ndarray, " ..."]:
    """Compute the mirror area off axis as a fraction of that on axis.

    Parameters
    ----------
    energy
        Photon energy, keV, any shape.
    theta
        Distance from the optical axis, arcmin; a number or an array.

    Returns
    -------
    Fraction, of the shape of `theta` followed by that of `energy`.

    Raises
    ------
    ParameterError
        If an energy is not positive or an angle is negative or not finite.
    """
    energy = _energies(energy)
    angle = _batch(theta, energy.ndim)
    if not (np.isfinite(angle).all() and (angle >= 0).all()):
        raise ParameterError("theta must be finite and not negative: arcmin from the optical axis")
    strength = np.interp(energy, VIGNETTING_ENERGY, VIGNETTING)
    return np.asarray(1.0 / (1.0 + strength * (angle / 10.0) ** VIGNETTING_POWER))


def fwhm(
    energy: Real | Float[np.ndarray, " *energies"], *, chip: Chip, year: Real | Float[np.ndarray, " *batch"]
) -> Float[np.ndarray, " ..."]:
    """Compute the full width at half maximum of the line-spread function.

    Parameters
    ----------
    energy
        Photon energy, keV, any shape.
    chip
        "FI" at a middling row, after correction for charge-transfer loss; or "BI".
    year
        Date as a decimal year, 1999 to 2027; a number or an array. FI chips get slowly worse.

    Returns
    -------
    Width in keV, of the shape of `year` followed by that of `energy`.

    Raises
    ------
    ParameterError
        If the chip is unknown, the year lies outside the mission, or an energy is not possible.
    """
    energy = _energies(energy)
    _layers(chip)
    growth = 1.0 + TRANSFER_GROWTH * (_years(year, energy.ndim) - 2005.0)
    transfer = np.interp(energy, WIDTH_ENERGY, WIDTH_TRANSFER[chip]) * growth
    return np.asarray(np.hypot(np.interp(energy, WIDTH_ENERGY, WIDTH_READOUT[chip]), transfer))


def redistribution(
    energy_lo: Float[np.ndarray, " n_energy"],
    energy_hi: Float[np.ndarray, " n_energy"],
    chan_lo: Float[np.ndarray, " n_chan"],
    chan_hi: Float[np.ndarray, " n_chan"],
    *,
    chip: Chip,
    year: Real,
    width: Real = 1.0,
) -> sparse.csr_array:
    """Compute the chance that a detected photon of each energy bin is counted in each channel.

    Parameters
    ----------
    energy_lo, energy_hi
        Edges of the energy bins, keV.
    chan_lo, chan_hi
        Edges of the channels, keV.
    chip
        "FI" or "BI".
    year
        Date as a decimal year, 1999 to 2027.
    width
        Factor on `fwhm`: real rows of an FI chip lie between 0.6 near the readout and 1.2 far from it.

    Returns
    -------
    Sparse ``[n_energy, n_chan]``; chances below 1e-6 are left out. A row sums to one less what falls outside
    the channels.

    Raises
    ------
    ParameterError
        If the chip is unknown, the year lies outside the mission, or an energy is not possible.

    Notes
    -----
    A Gaussian peak of width `fwhm`, a wide Gaussian under it, a shoulder below it, a flat shelf from zero to the peak,
    the silicon escape peak at E - 1.739 keV, and silicon fluorescence at 1.739 keV, both for E above the Si K edge.
    Within a bin the photons are taken to spread evenly: its width adds to the peak's in quadrature.
    """
    _layers(chip)
    energy = 0.5 * (energy_lo + energy_hi)
    line = LINE[chip]
    # Peak and wide component together are 2 % wider at half maximum than the peak alone.
    peak = 0.98 / np.sqrt(8.0 * np.log(2.0)) * width * fwhm(energy, chip=chip, year=year)
    sigma = np.hypot(peak, (energy_hi - energy_lo) / np.sqrt(12.0))
    above = energy > SI_EDGE
    fall = 2.5 / np.maximum(energy, SI_EDGE)
    escape = np.where(above, line["escape"] * fall ** line["escape_power"], 0.0)
    fluorescence = np.where(above, line["fluorescence"] * fall, 0.0)
    wide = np.full_like(energy, line["wide"])
    shoulder = np.where(above, line["shoulder_above"], line["shoulder"])
    shelf = np.where(above, line["shelf_above"], line["shelf"])

    def gaussian(weight: np.ndarray, centre: np.ndarray, width: np.ndarray) -> np.ndarray:
        lo, hi = (ndtr((edge - centre[:, None]) / width[:, None]) for edge in (chan_lo, chan_hi))
        return weight[:, None] * (hi - lo)

    def flat(weight: np.ndarray) -> np.ndarray:
        lo, hi = (np.clip(edge / energy[:, None], 0.0, 1.0) for edge in (chan_lo, chan_hi))
        return weight[:, None] * (hi - lo)

    matrix = (
        gaussian(1.0 - escape - fluorescence - wide - shoulder - shelf, energy, sigma)
        + gaussian(wide, energy, 3.0 * sigma)
        + gaussian(shoulder, energy - 3.0 * sigma, 1.5 * sigma)
        + gaussian(escape, energy - SI_LINE, sigma)
        + gaussian(fluorescence, np.full_like(energy, SI_LINE), np.full_like(energy, 0.045))
        + flat(shelf)
    )
    return sparse.csr_array(np.where(matrix < 1e-6, 0.0, matrix))


def response(
    chip: Chip = "BI", year: Real = 2005.0, theta: Real = 0.0, *, area_scale: Real = 1.0, width: Real = 1.0
) -> Response:
    """Make an ACIS response on the grids of Chandra's own tools: 0.3-11 keV in 10 eV bins, 1024 PI channels of 14.6 eV.

    Parameters
    ----------
    chip
        "FI" or "BI".
    year
        Date as a decimal year, 1999 to 2027.
    theta
        Distance from the optical axis, arcmin.
    area_scale
        Factor on the area: what the extraction aperture, a chip gap or a grating leaves of it.
    width
        Factor on the energy resolution, as in `redistribution`.

    Returns
    -------
    `Response` whose ``meta`` names telescope, instrument and these arguments.

    Raises
    ------
    ParameterError
        If an argument is out of range.

    Examples
    --------
    >>> from xlatent.simulate import acis
    >>> acis.response("BI", 2005.0).redistribution.shape
    (1070, 1024)
    """
    energy = np.linspace(0.3, 11.0, 1071)
    channels = CHANNEL_WIDTH * np.arange(1025)
    channels[0] = 0.5 * CHANNEL_WIDTH  # as in real EBOUNDS, so that no energy is zero
    lo, hi, chan_lo, chan_hi = energy[:-1], energy[1:], channels[:-1], channels[1:]
    return Response(
        energy_lo=lo,
        energy_hi=hi,
        area=area_scale * effective_area(0.5 * (lo + hi), chip=chip, year=year, theta=theta),
        redistribution=redistribution(lo, hi, chan_lo, chan_hi, chip=chip, year=year, width=width),
        chan_lo=chan_lo,
        chan_hi=chan_hi,
        meta={
            "telescope": "CHANDRA",
            "instrument": "ACIS",
            "chip": chip,
            "year": float(year),
            "theta": float(theta),
            "area_scale": float(area_scale),
            "width": float(width),
        },
    )


def _attenuation(material: str, energy: np.ndarray) -> np.ndarray:
    if material == "polyimide":
        return np.asarray(sum(part * _attenuation(element, energy) for element, part in POLYIMIDE.items()))
    table_energy, table = ATTENUATION[material]
    return np.asarray(np.exp(np.interp(np.log(energy), np.log(table_energy), np.log(table))))


def _energies(energy: Real | np.ndarray) -> np.ndarray:
    values = np.asarray(energy, dtype=float)
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ParameterError("energies must be finite and above 0 keV")
    return values


def _layers(chip: Chip) -> dict[str, float]:
    if chip not in LAYERS:
        raise ParameterError(f"the chip must be 'FI' or 'BI', and not {chip!r}")
    return LAYERS[chip]


def _years(year: Real | np.ndarray, energy_ndim: int) -> np.ndarray:
    dates = _batch(year, energy_ndim)
    if not ((dates >= 1999.0) & (dates <= 2027.0)).all():
        raise ParameterError("the year must lie between 1999 and 2027, the mission that the contaminant's table covers")
    return dates


def _batch(state: Real | np.ndarray, energy_ndim: int) -> np.ndarray:
    """Append an axis of length one for each axis of the energies, so that the two broadcast."""
    values = np.asarray(state, dtype=float)
    return values.reshape(values.shape + (1,) * energy_ndim)
