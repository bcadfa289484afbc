"""Sources matched on position with the labels of a catalogue, and split for training and tests."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord, search_around_sky
from astropy.table import Column, MaskedColumn, Table
from jaxtyping import Float, Shaped

from xlatent.core.errors import ParameterError
from xlatent.csc.labels import (
    NEIGHBOURHOOD,
    SIMBAD,
    VIZIER,
    YANG,
    as_numbers,
    as_texts,
    from_file,
    from_simbad,
    from_vizier,
    positions_of,
)
from xlatent.formats.catalogue_tables import read_columns

DEFAULT_ERROR = 1.0
"""Radius (arcsec) at 95 per cent for a source without an error ellipse: 99 per cent of the sources of Yang et al. are
known better (column ``pos_err``)."""

TRAIN_SHARE, VALIDATION_SHARE = 0.70, 0.15


@dataclass(frozen=True)
class LabelCounts:
    """How many sources of a labelled selection have a class."""

    detections: int
    sources: int
    classes: Counter[str]
    """Sources of each class."""
    conflicts: dict[str, str]
    """Classes between which the catalogue leaves a source, by its name."""


def label_selection(
    selection: str | Path,
    labels: str | Path | None = None,
    *,
    simbad: bool = False,
    server: str | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Table:
    r"""Label a selection with classes from Yang et al. 2022 (VizieR), from SIMBAD or from a file.

    Parameters
    ----------
    selection : str or Path
        Table with columns ``name``, ``ra`` and ``dec`` (deg), such as one of `Catalogue.select`.
    labels : str or Path, optional
        Table as `from_file` takes it; VizieR is asked if not given.
    simbad : bool
        Ask SIMBAD instead, by the types of its objects.
    server : str, optional
        Host of a mirror of VizieR or SIMBAD.
    seed : int
        Of the split into training, validation and test.
    progress : callable, optional
        Called with the number of positions that SIMBAD has answered for, and of all.

    Returns
    -------
    Table
        As of `match`; `write` keeps it, `count_labels` sums it up.

    Raises
    ------
    ParameterError
        If there is a file and a server as well.
    ReadError
        If a table cannot be read, or the server cannot be reached or does not answer with labels.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "selection.csv").write_text("name,ra,dec\na,10,0\nb,20,0\n")
    >>> _ = (folder / "mine.csv").write_text("ra,dec,class\n10.0001,0,CV\n")
    >>> label_selection(folder / "selection.csv", folder / "mine.csv")["class"].tolist()
    ['CV', None]
    """
    if labels is not None and (simbad or server is not None):
        raise ParameterError(
            "--labels takes the classes from a file, so --simbad and --server have nothing to do; leave them out"
        )
    table = read_columns(selection, ("name", "ra", "dec"))
    if labels is not None:
        return match(table, from_file(labels), Path(labels).name, seed)
    if simbad:
        return match(table, from_simbad(positions_of(table), server or SIMBAD, progress), "SIMBAD", seed)
    return match(table, from_vizier(server or VIZIER), YANG, seed)


def count_labels(labelled: Table) -> LabelCounts:
    """Count the sources of each class in a table of `match`, and those left between several.

    Examples
    --------
    >>> from astropy.table import MaskedColumn, Table
    >>> columns = {"class": ["NS", ""], "class_conflict": ["", "AGN, CV"]}
    >>> masked = {name: MaskedColumn(values, mask=[not v for v in values]) for name, values in columns.items()}
    >>> count_labels(Table({"name": ["a", "b"]} | masked)).conflicts
    {'b': 'AGN, CV'}
    """
    rows = labelled["name", "class", "class_conflict"].filled("")
    sources = {str(name): (str(kind), str(conflict)) for name, kind, conflict in rows.iterrows()}
    return LabelCounts(
        detections=len(labelled),
        sources=len(sources),
        classes=Counter(kind for kind, _ in sources.values() if kind),
        conflicts={name: conflict for name, (_, conflict) in sources.items() if conflict},
    )


def split(names: Iterable[str], seed: int = 0) -> Shaped[np.ndarray, " n_row"]:
    """Assign each source to training, validation or test, by a hash of its name.

    All rows of a source go together, whatever else is in the table and in whatever order. Spaces around
    a name do not count.

    Parameters
    ----------
    names : iterable of str
        The name of the source of each row.
    seed : int
        Another seed is another split.

    Returns
    -------
    numpy.ndarray of str, shape (n_row,)
        ``train`` (70 %), ``validation`` (15 %) or ``test`` (15 %).

    Examples
    --------
    >>> split(["2CXO J000006.0+010203", "2CXO J000007.0+010203"]).tolist()
    ['train', 'validation']
    """

    def part(name: str) -> str:
        digest = blake2b(f"{seed}:{name.strip()}".encode(), digest_size=8).digest()
        place = int.from_bytes(digest, "big") / 2**64
        return "train" if place < TRAIN_SHARE else "validation" if place < TRAIN_SHARE + VALIDATION_SHARE else "test"

    return np.array([part(str(name)) for name in names], dtype="<U10")


def match(selection: Table, labels: Table, catalogue: str, seed: int = 0) -> Table:
    """Give each row of a selection the class of the catalogue entry within its error, if entries there agree.

    An entry matches that lies within the ellipse made of the row's own error ellipse at 95 % (CSC columns
    ``err_ellipse_r0``, ``err_ellipse_r1``, arcsec, and ``err_ellipse_ang``, degrees east of north; a circle of
    `DEFAULT_ERROR` where they are missing) and the entry's error, semi-axes added in quadrature. The nearest by this
    measure is the one described. Its chance-coincidence probability, that an unrelated entry lies in the ellipse, is
    1 - exp(-ρA): A is the area of the ellipse, ρ the density of entries within 5 arcmin of the row, the one found
    among them, so that it is never zero.

    Parameters
    ----------
    selection : Table
        With columns ``name``, ``ra`` and ``dec`` (deg).
    labels : Table
        As of `from_file`.
    catalogue : str
        What to call the catalogue in ``class_catalogue``.
    seed : int
        Of `split`.

    Returns
    -------
    Table
        All rows and columns of the selection, and: ``class``; ``class_separation`` and ``class_error`` (of the entry,
        95 %), arcsec; ``class_chance``; ``class_conflict``, the classes where there are several, and then ``class``
        is missing; ``class_catalogue``; ``split``. Where nothing matches they are missing, all but ``split``.

    Examples
    --------
    >>> selection = Table({"name": ["a", "b"], "ra": [10.0, 20.0], "dec": [0.0, 0.0]})
    >>> labels = Table({"ra": [10.0001], "dec": [0.0], "pos_err": [0.3], "class": ["CV"]})
    >>> match(selection, labels, "mine")["class"].tolist()
    ['CV', None]
    """
    n_row = len(selection)
    ra, dec = as_numbers(selection["ra"]), as_numbers(selection["dec"])
    placed = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90.0)
    rows = np.flatnonzero(placed)
    sources = SkyCoord(ra[rows], dec[rows], unit="deg")
    entries = SkyCoord(labels["ra"], labels["dec"], unit="deg")
    major, minor, angle = (values[rows] for values in _ellipse(selection))

    near, entry, apart, _ = search_around_sky(sources, entries, NEIGHBOURHOOD)
    density = np.bincount(near, minlength=len(rows)) / (np.pi * NEIGHBOURHOOD.to_value("arcsec") ** 2)
    error = np.asarray(labels["pos_err"], dtype=float)[entry]
    apart = apart.to_value("arcsec")
    bearing = sources[near].position_angle(entries[entry]).radian - angle[near]
    a, b = np.hypot(major[near], error), np.hypot(minor[near], error)
    measure = np.hypot(apart * np.cos(bearing) / a, apart * np.sin(bearing) / b)  # 1 on the ellipse
    inside = measure <= 1.0
    chance = -np.expm1(-density[near] * np.pi * a * b)

    text = {key: np.full(n_row, "", dtype=object) for key in ("class", "class_conflict", "class_catalogue")}
    number = {key: np.full(n_row, np.nan) for key in ("class_separation", "class_error", "class_chance")}
    kinds = np.asarray(labels["class"], dtype=str)[entry]
    order = np.flatnonzero(inside)[np.lexsort((measure[inside], near[inside]))]  # of each row the nearest first
    for group in np.split(order, np.flatnonzero(np.diff(near[order])) + 1) if order.size else ():
        row, best = rows[near[group[0]]], group[0]
        classes = sorted(set(kinds[group].tolist()))
        text["class" if len(classes) == 1 else "class_conflict"][row] = ", ".join(classes)
        text["class_catalogue"][row] = catalogue
        number["class_separation"][row], number["class_error"][row] = apart[best], error[best]
        number["class_chance"][row] = chance[best]

    labelled = selection.copy()
    for key in ("class", "class_separation", "class_error", "class_chance", "class_conflict", "class_catalogue"):
        if key in text:
            values = text[key].astype(str)
            labelled[key] = MaskedColumn(values, mask=values == "", description=_DESCRIPTIONS[key])
        else:
            unit = None if key == "class_chance" else "arcsec"
            labelled[key] = MaskedColumn(
                number[key], mask=np.isnan(number[key]), unit=unit, description=_DESCRIPTIONS[key]
            )
    labelled["split"] = Column(split(as_texts(selection["name"]), seed), description=_DESCRIPTIONS["split"])
    labelled.meta["labels"] = catalogue
    labelled.meta["split_seed"] = seed
    return labelled


_DESCRIPTIONS = {
    "class": "Class of the source in class_catalogue",
    "class_separation": "Distance from the position to the catalogue entry nearest within the errors",
    "class_error": "Position error of that entry, 95 per cent radius",
    "class_chance": "Probability that an unrelated entry lies within the errors",
    "class_conflict": "Classes of the entries within the errors, where they disagree",
    "class_catalogue": "Catalogue of that entry",
    "split": "Use in machine learning, by source: train, validation or test",
}


def _ellipse(
    selection: Table,
) -> tuple[Float[np.ndarray, " n_row"], Float[np.ndarray, " n_row"], Float[np.ndarray, " n_row"]]:
    """Semi-axes (arcsec) and position angle (radian) of the error ellipses, defaults where there are none."""
    missing = np.full(len(selection), np.nan)
    r0, r1, angle = (
        as_numbers(selection[name], unit) if name in selection.colnames else missing
        for name, unit in (("err_ellipse_r0", "arcsec"), ("err_ellipse_r1", "arcsec"), ("err_ellipse_ang", "deg"))
    )
    major = np.where(r0 > 0, r0, DEFAULT_ERROR)
    known = (r0 > 0) & (r1 > 0) & np.isfinite(angle)  # a circle otherwise
    return major, np.where(known, r1, major), np.where(known, np.radians(angle), 0.0)
