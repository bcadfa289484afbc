"""Files that belong to a spectrum, found by what its header names or by its own name."""

from pathlib import Path

# Names that the tools of CIAO give to what they make beside NAME.pi, the best first: specextract corrects the area of a
# point source for its aperture in NAME.corr.arf, and its older kin wrote NAME.warf, NAME.wrmf and NAME_bg.pi.
_OF_ONE_NAME = {
    "ANCRFILE": ("{name}.corr.arf", "{name}.arf", "{name}.warf"),
    "RESPFILE": ("{name}.rmf", "{name}.wrmf"),
    "BACKFILE": ("{name}_bkg{suffix}", "{name}_bg{suffix}"),
}


def stem(path: Path) -> str:
    """Return the file name without its suffix and without ``.gz``."""
    return Path(path.name.removesuffix(".gz")).stem


def is_none(name: object) -> bool:
    """Tell whether a file name says that there is no file: None, empty, blank, or ``none`` in any case."""
    return name is None or str(name).strip().lower() in ("", "none", ".")  # Path("") is "."


def existing(path: Path) -> Path | None:
    """Return the path itself, or with ``.gz`` added or taken away, whichever exists."""
    name = str(path)
    for candidate in (name, f"{name}.gz", name.removesuffix(".gz")):
        try:
            if Path(candidate).exists():
                return Path(candidate)
        except (OSError, ValueError):  # a damaged header may hold what is no file name at all
            return None
    return None


def named_companion(path: Path, named: str) -> Path | None:
    """Find a file that the header of another names: relative to it or, failing that, of that name next to it.

    Parameters
    ----------
    path : Path
        The file whose header names the other.
    named : str
        The name; an extension or row after it, as in ``a.rmf[MATRIX]`` or ``a.rmf{2}``, is passed over.

    Returns
    -------
    Path or None
        The file, with or without ``.gz``; None where there is none.
    """
    plain = named.split("[")[0].split("{")[0].strip()
    if not Path(plain).name:
        return None
    return existing(path.parent / plain) or existing(path.parent / Path(plain).name)


def companion_of_one_name(path: Path, keyword: str) -> Path | None:
    """Find the ARF, RMF or background that lies beside a spectrum and has its name.

    Of ``source.pi`` and, where these do not exist, of ``source_grp.pi`` and ``source_src.pi``:

    - the ARF is ``source.corr.arf``, ``source.arf`` or ``source.warf``,
    - the RMF is ``source.rmf`` or ``source.wrmf``,
    - the background is ``source_bkg.pi`` or ``source_bg.pi``, with the suffix that the spectrum has,

    the first that exists, with or without ``.gz``.

    Parameters
    ----------
    path : Path
        PHA file.
    keyword : {"ANCRFILE", "RESPFILE", "BACKFILE"}
        The keyword that would name the companion.

    Returns
    -------
    Path or None
        The file; None where there is none.
    """
    whole = stem(path)
    suffix = Path(path.name.removesuffix(".gz")).suffix
    for name in dict.fromkeys((whole, whole.removesuffix("_grp"), whole.removesuffix("_src"))):
        for pattern in _OF_ONE_NAME[keyword]:
            found = existing(path.with_name(pattern.format(name=name, suffix=suffix)))
            if found is not None:
                return found
    return None
