"""``xlatent csc``: sources of the Chandra Source Catalog, selected, described, fetched and labelled."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlatent.cli.csc_fetch import fetch
from xlatent.cli.csc_label import label
from xlatent.cli.ui import USAGE, abort, echo_status
from xlatent.core.outputs import check_output

if TYPE_CHECKING:
    from astropy.table import Row, Table

    from xlatent.csc.query import Cone

app = typer.Typer(help="The Chandra Source Catalog: select detections, fetch their spectra, label them.")
_Release = Annotated[str, typer.Option(help="Release of the catalogue: 2.1 or 2.0.")]
_Service = Annotated[
    str | None,
    typer.Option(
        envvar="XLATENT_CSC_TAP",
        metavar="URL",
        help="TAP service, if not that of the Chandra X-ray Center.",
        show_default=False,
    ),
]


@app.command()
def select(
    output: Annotated[Path, typer.Option(help="Table to write (.ecsv).", show_default=False)],
    min_significance: Annotated[float, typer.Option(help="Least flux significance, 0.5-7 keV.")] = 5.0,
    min_counts: Annotated[float, typer.Option(help="Least net counts, 0.5-7 keV.")] = 40.0,
    max_theta: Annotated[float, typer.Option(help="Largest off-axis angle, arcmin.")] = 10.0,
    cone: Annotated[
        str | None, typer.Option(metavar="RA,DEC,RADIUS", help="Only sources in this circle, degrees (ICRS).")
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Only sources of these names: one a line, or a table with a column name."),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Only sources within 5 arcsec of labelled ones: a table with columns ra, dec, class."
        ),
    ] = None,
    release: _Release = "2.1",
    service: _Service = None,
) -> None:
    """Select detections with ACIS, one row each, with what the catalogue says of them and of their sources."""
    from xlatent.csc.query import Limits, read_names, read_positions, write

    if sum(given is not None for given in (cone, names, classes)) > 1:
        abort("--cone, --names and --classes exclude each other; give one of them", USAGE)
    check_output(output, [".ecsv"])
    where: dict[str, Any] = {}
    if cone is not None:
        where["cone"] = _cone(cone)
    if names is not None:
        where["names"] = read_names(names)
    if classes is not None:
        where["positions"] = read_positions(classes)
    with _waiting() as hear:
        catalog = _catalog(release, service, hear)
        found = catalog.select(Limits(min_significance, min_counts, max_theta), **where)
        hear(f"writing {output}")
        write(found, output)
    sources = len(set(found["name"]))
    echo_status(f"{len(found)} detections of {sources} sources of release {release} are in {output}")


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="Name such as '2CXO J004248.5+411521'.", show_default=False)],
    release: _Release = "2.1",
    service: _Service = None,
) -> None:
    """Say what the catalogue says of one source, and list its detections."""
    with _waiting() as hear:
        source, detections = _catalog(release, service, hear).source(name)
    for title, text in _facts(source):
        typer.echo(f"{title:<16}{text}")
    _print(detections)


app.command()(fetch)
app.command()(label)


def _catalog(release: str, service: str | None, hear: Callable[[str], Any]) -> Any:
    from xlatent.csc.query import Catalog

    try:
        return Catalog(release, service, hear)
    except ModuleNotFoundError as error:
        if error.name != "pyvo":
            raise
        abort('pyvo is not installed, and the catalogue is asked through it: pip install "xlatent[csc]"', USAGE)


@contextmanager
def _waiting() -> Iterator[Callable[[str], Any]]:
    """Show on stderr, if that is a terminal, what is being waited for."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda words: None
        return
    with console.status("asking the Chandra Source Catalog") as status:
        yield status.update


def _cone(text: str) -> "Cone":
    from xlatent.csc.query import Cone

    try:
        ra, dec, radius = (float(part) for part in text.split(","))
    except ValueError:
        abort(f"--cone should be three numbers RA,DEC,RADIUS in degrees, and it is {text!r}", USAGE)
    if not (0 <= ra <= 360 and -90 <= dec <= 90 and 0 < radius <= 180):
        abort(
            f"--cone is {text}, and it should have RA from 0 to 360, Dec from -90 to 90 and a radius above 0 and up to "
            "180, in degrees",
            USAGE,
        )
    return Cone(ra, dec, radius)


def _facts(source: "Table") -> Iterator[tuple[str, str]]:
    """What there is to say of a source, line by line; what the catalogue leaves empty is left out."""
    row = source[0]
    yield "name", row["name"]
    yield "position", f"{row['ra']:.6f}, {row['dec']:.6f} deg (ICRS)"
    ellipse = [_text(row, f"err_ellipse_{part}") for part in ("r0", "r1", "ang")]
    if all(ellipse):
        yield "error ellipse", f"{ellipse[0]} x {ellipse[1]} arcsec, {ellipse[2]} deg, 95 %"
    yield "significance", _text(row, "significance") + f"  {row['likelihood_class'].lower()}"
    for band in "bsmh":
        if flux := _text(row, f"flux_aper_{band}", f"flux_aper{{}}_{band}"):
            yield f"flux {band}", f"{flux} erg cm-2 s-1"
    for ratio in ("hm", "hs", "ms"):
        if value := _text(row, f"hard_{ratio}", f"hard_{ratio}{{}}"):
            yield f"hardness {ratio}", value
    if value := _text(row, "nh_gal"):
        yield "Galactic N_H", f"{value}e20 cm-2"
    for model, parameter, words in (
        ("powlaw", "gamma", "photon index"),
        ("bb", "kt", "kT keV"),
        ("brems", "kt", "kT keV"),
        ("apec", "kt", "kT keV"),
    ):
        if value := _text(row, f"{model}_{parameter}", f"{model}_{parameter}{{}}"):
            nh = _text(row, f"{model}_nh", f"{model}_nh{{}}") or "unknown"
            statistic = _text(row, f"{model}_stat") or "unknown"
            yield f"fit {model}", f"{words} {value}, N_H/1e20 cm-2 {nh}, statistic {statistic}"
    for kind, words in (("intra", "within one observation"), ("inter", "between observations")):
        if value := _text(row, f"var_{kind}_prob_b"):
            index = _text(row, f"var_{kind}_index_b") or "unknown"
            yield "variable", f"{words} with probability {value}, index {index}"
    flags = [name for name in source.colnames if source[name].dtype.kind == "b"]
    raised = [flag.removesuffix("_flag") for flag in flags if not _masked(row[flag]) and row[flag]]
    yield "flags", ", ".join(raised) or "none"


def _masked(value: object) -> bool:
    import numpy as np

    return value is np.ma.masked


def _text(row: "Row", name: str, limits: str = "") -> str:
    """A value, with its 68 % limits where ``limits`` says how their columns are named; empty where masked."""
    if name not in row.colnames or _masked(row[name]):
        return ""
    text = f"{row[name]:.4g}"
    if limits:
        low, high = (row[limits.format(end)] for end in ("_lolim", "_hilim"))
        if not _masked(low) and not _masked(high):
            text += f" ({low:.4g} to {high:.4g})"
    return text


def _print(detections: "Table") -> None:
    from rich.console import Console
    from rich.table import Table as Shown

    if not len(detections):
        typer.echo("No detection in a single observation is matched to this source only.")
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    shown = Shown(box=None, pad_edge=False, header_style="bold")
    columns = {
        "obsid": "obsid",
        "obi": "obi",
        "region_id": "region",
        "instrument": "instrument",
        "gti_obs": "start",
        "livetime": "livetime",
        "theta": "theta",
        "src_cnts_aper_b": "counts",
        "flux_significance_b": "significance",
        "flux_aper_b": "flux",
        "var_prob_b": "P(variable)",
    }
    for title in columns.values():
        shown.add_column(title, justify="right", no_wrap=True)
    detections.sort(["gti_mjd_obs", "obsid", "obi"])
    for row in detections:
        cells = (row[name] if detections[name].dtype.kind in "iU" else _text(row, name) for name in columns)
        shown.add_row(*(str(cell) for cell in cells))
    console.print(shown)
    typer.echo("Livetime in s, theta in arcmin; counts net of background, flux in erg cm-2 s-1, all of band b.")
    typer.echo("Bands: b 0.5-7, s 0.5-1.2, m 1.2-2, h 2-7 keV; in parentheses 68 % limits.")
