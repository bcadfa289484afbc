"""Emission of an optically thin thermal plasma, from a table that is made of AtomDB.

The table holds some thousand lines and, element by element, the continuum in cells of energy, at AtomDB's temperatures.
A call interpolates in temperature, sums from the highest energy down and reads the sums at the bin edges: coarse bins
are exactly the sums of fine ones.
"""

from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import array_api_compat
import numpy as np

from xlatent.core.errors import ParameterError

__all__ = ["ELEMENTS", "SOLAR", "plasma"]

# Number relative to hydrogen, Anders & Grevesse 1989 (Geochim. Cosmochim. Acta 53, 197), table 2, photosphere.
SOLAR = {
    "C": 3.63e-4, "N": 1.12e-4, "O": 8.51e-4, "Ne": 1.23e-4, "Mg": 3.80e-5, "Al": 2.95e-6, "Si": 3.55e-5,
    "S": 1.62e-5, "Ar": 3.63e-6, "Ca": 2.29e-6, "Fe": 4.68e-5, "Ni": 1.78e-6,
}  # fmt: skip
ELEMENTS = tuple(SOLAR)
_IRON = ELEMENTS.index("Fe")
_N_ROW = len(ELEMENTS) + 2  # of the table: hydrogen with helium, the elements, all rarer ones

_TABLE = Path(__file__).with_name("plasma.npz")  # docs/make_plasma_table.py makes it
_LOG_LOW, _LOG_HIGH = float(np.log(0.05)), float(np.log(100.0))  # range of the table's cells, keV
_N_STEP = 250  # steps in a cell, 0.002 % wide, in which lines lie
_FLUX = 1e14  # photons/cm2/s at norm 1 for an emissivity of 1 photon cm3/s


@cache
def _tables() -> SimpleNamespace:
    """Read the table. Emissivities become photons cm⁻² s⁻¹ at norm 1."""
    with np.load(_TABLE, allow_pickle=False) as file:
        packed = {name: file[name] for name in file.files}

    def unpacked(name: str) -> np.ndarray:
        return np.where(packed[name] > 0, np.exp(packed["lowest"] + packed["step"] * packed[name]), 0.0)

    n_temp = len(packed["kt"])
    fraction = unpacked("fraction")
    # Mean square charge of every element's ions: bremsstrahlung goes with it. First and last row never change.
    charge_squared = np.zeros((n_temp, _N_ROW))
    np.add.at(charge_squared.T, packed["ion_element"], (fraction * packed["ion_charge"].astype(float) ** 2).T)
    charge_squared[:, [0, -1]] = 1.0
    continuum = unpacked("continuum").reshape(n_temp * _N_ROW, -1)
    n_cell = continuum.shape[1]
    line_position = (_LOG_HIGH - np.log(packed["line_energy"][::-1])) * (n_cell / (_LOG_HIGH - _LOG_LOW))
    return SimpleNamespace(
        kt=packed["kt"],
        ion_element=packed["ion_element"].astype(np.int64),
        fraction=fraction,
        charge_squared=charge_squared,
        n_line_above=np.searchsorted(line_position, np.arange(_N_STEP * n_cell + 1) / _N_STEP),
        line_position=np.append(line_position, np.inf),
        line_ion=_from_the_top(packed["line_ion"].astype(np.int64)),
        line_equilibrium=_from_the_top(unpacked("line_equilibrium")) * _FLUX,
        line_rate=_from_the_top(unpacked("line_rate")) * _FLUX,
        continuum=_from_the_top(continuum) * _FLUX,
    )


def _from_the_top(values: np.ndarray) -> np.ndarray:
    """Order the last axis by falling energy, after a zero: running sums begin where photons are few, with nothing.

    Float32 keeps the digits of both ends of a spectrum so.
    """
    return np.concatenate([np.zeros_like(values[..., :1]), values[..., ::-1]], axis=-1)


@lru_cache(maxsize=8)
def _tables_for(xp: ModuleType, dtype: Any, device: Any) -> SimpleNamespace:
    """Return the tables as arrays of one namespace, type and device."""
    kinds = {"f": dtype, "i": xp.int64}
    return SimpleNamespace(
        **{k: xp.asarray(v, dtype=kinds[v.dtype.kind], device=device) for k, v in vars(_tables()).items()}
    )


def plasma(energy: Any, kt: Any, abundance: Any, kt_ion: Any = None) -> Any:
    """Compute the photon flux of an optically thin plasma, that of XSPEC's ``vapec`` with AtomDB 3.0.9.

    The ions are in collisional ionisation equilibrium at `kt_ion`, the electrons at `kt`. Left alone, the two are the
    same; a lower `kt_ion` imitates an ionising plasma such as the ejecta of a young supernova remnant.

    Parameters
    ----------
    energy : array [n_energy + 1] or [n_batch, n_energy + 1]
        Ascending bin edges in keV, NumPy or torch, float32 or float64. There is no emission outside 0.05-100 keV.
    kt : array [n_batch] or float
        Electron temperature in keV, 0.054 to 34; beyond, the nearest of these is taken.
    abundance : array [n_batch, 12] or [n_batch] or float
        Relative to solar (Anders & Grevesse 1989); a second axis is in the order of `ELEMENTS`. Helium is solar; rarer
        elements than these, such as sodium and chromium, go with iron: XSPEC's APEC_TRACE_ABUND set to Fe.
    kt_ion : array [n_batch] or float, optional
        Temperature of the ion fractions in keV; `kt` if not given. Given and the same, broad bands differ by 1 % and in
        cool plasma by up to 10 %, as fractions and rates are then interpolated each for itself.

    Returns
    -------
    array [n_batch, n_energy], or [n_energy] where everything is scalar
        Photons cm⁻² s⁻¹ per bin for norm 1, the norm of XSPEC's ``apec``: 1e-14 / (4 pi D²) times the integral of
        n_e n_H dV, all in cgs units.

    Raises
    ------
    ParameterError
        If `abundance` has a second axis that has neither 1 nor 12 columns.

    Notes
    -----
    AtomDB 3.0.9 (Smith et al. 2001, ApJ 556, L91; Foster et al. 2012, ApJ 756, 128), interpolated linearly in kT
    between its temperatures, ten a decade, as XSPEC does; docs/plasma.md says how the table is made and how far it is
    from the files. Lines have no width.

    With `kt_ion`, an ion emits as AtomDB's does at the temperature of the electrons, times its fraction at `kt_ion`.
    Where it is rare in equilibrium, its lines follow the rate of an excitation from the nearest temperature where it is
    common; satellites belong to the ion before it recombines, and follow the rate of that. The continuum of a metal
    goes with the mean square charge of its ions. One ionisation temperature is not an ionisation time-scale: real
    ionising plasmas have broader mixtures of ions.

    Examples
    --------
    >>> plasma(np.array([0.5, 2.0, 7.0]), 1.0, 0.3).round(3)
    array([0.64 , 0.026])
    """
    xp = array_api_compat.array_namespace(energy)
    dtype, device = energy.dtype, array_api_compat.device(energy)
    kt = xp.asarray(kt, dtype=dtype, device=device)
    abundance = xp.asarray(abundance, dtype=dtype, device=device)
    ionising = kt_ion is not None
    kt_ion = xp.asarray(kt_ion, dtype=dtype, device=device) if ionising else kt
    scalar = energy.ndim == 1 and kt.ndim == 0 and abundance.ndim == 0 and kt_ion.ndim == 0
    if abundance.ndim < 2:
        abundance = xp.reshape(abundance, (-1, 1))
    if abundance.shape[1] not in (1, len(ELEMENTS)):
        raise ParameterError(
            f"abundance has {abundance.shape[1]} columns; give 1 or {len(ELEMENTS)}, in the order of ELEMENTS"
        )
    kt, kt_ion = xp.reshape(kt, (-1,)), xp.reshape(kt_ion, (-1,))
    n_batch = max(kt.shape[0], kt_ion.shape[0], abundance.shape[0], energy.shape[0] if energy.ndim == 2 else 1)
    kt, kt_ion = xp.broadcast_to(kt, (n_batch,)), xp.broadcast_to(kt_ion, (n_batch,))
    abundance = xp.broadcast_to(abundance, (n_batch, len(ELEMENTS)))
    elements = xp.concat([xp.ones_like(abundance[:, :1]), abundance, abundance[:, _IRON : _IRON + 1]], axis=1)

    tables = _tables_for(xp, dtype, device)
    share = _shares(xp, tables.kt, kt)
    ions = xp.take(elements, tables.ion_element, axis=1)
    if ionising:
        share_ion = _shares(xp, tables.kt, kt_ion)
        ions = ions * (share_ion @ tables.fraction)
        elements = elements * (share_ion @ tables.charge_squared) / (share @ tables.charge_squared)
    lines = share @ (tables.line_rate if ionising else tables.line_equilibrium)
    lines *= xp.take(ions, tables.line_ion, axis=1)
    continuum = xp.reshape(share[:, :, None] * elements[:, None, :], (n_batch, -1)) @ tables.continuum

    of_lines, of_continuum = _above(xp, tables, lines, continuum, energy)
    flux = _between(xp, of_lines) + _between(xp, of_continuum)
    return flux[0, :] if scalar else flux


def _shares(xp: ModuleType, nodes: Any, kt: Any) -> Any:
    """Weights [n_batch, n_temp] of linear interpolation in kt between ascending nodes [n_temp]."""
    kt = xp.clip(kt, nodes[0], nodes[-1])[:, None]
    step = nodes[1:] - nodes[:-1]
    rise = (kt - nodes[:-1]) / step
    end = xp.ones_like(kt)
    return xp.clip(xp.minimum(xp.concat([end, rise], axis=1), xp.concat([1 - rise, end], axis=1)), 0.0, 1.0)


def _above(xp: ModuleType, tables: SimpleNamespace, lines: Any, continuum: Any, energy: Any) -> tuple[Any, Any]:
    """Photons above the edges, of lines [n_batch, 1 + n_line] and of continuum [n_batch, 1 + n_cell]."""
    n_cell = continuum.shape[1] - 1
    position = (_LOG_HIGH - xp.log(xp.clip(energy, 1e-3, 1e3))) * (n_cell / (_LOG_HIGH - _LOG_LOW))
    position = xp.clip(position, 0.0, float(n_cell))
    # Quicker than a search: but for rare cases a step holds one line at most, and it is narrower than lines are known.
    flat = xp.reshape(position, (-1,))
    n_line = xp.take(tables.n_line_above, xp.astype(xp.floor(flat * _N_STEP), xp.int64))
    n_line = n_line + xp.astype(xp.take(tables.line_position, n_line) < flat, xp.int64)
    n_line = xp.reshape(n_line, position.shape)
    cell = xp.clip(xp.astype(xp.floor(position), xp.int64), 0, n_cell - 1)
    share = position - xp.astype(cell, position.dtype)
    lines, continuum = xp.cumulative_sum(lines, axis=1), xp.cumulative_sum(continuum, axis=1)
    between = (1 - share) * _read(xp, continuum, cell) + share * _read(xp, continuum, cell + 1)
    return _read(xp, lines, n_line), between


def _read(xp: ModuleType, values: Any, index: Any) -> Any:
    """Take values [n_batch, n] at index [n_edges] or [n_batch, n_edges]."""
    return xp.take(values, index, axis=1) if index.ndim == 1 else xp.take_along_axis(values, index, axis=1)


def _between(xp: ModuleType, above: Any) -> Any:
    """Photons between neighbouring edges."""
    return xp.clip(above[:, :-1] - above[:, 1:], 0.0, None)
