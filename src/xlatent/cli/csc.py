"""``xlatent csc``: sources of the Chandra Source Catalog, selected, described, fetched and labelled."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlatent.cli.csc_fetch import fetch
from xlatent.cli.csc_label import label
from xlatent.cli.ui import USAGE, abort, echo_status, print_table
from xlatent.core.outputs import check_output

if TYPE_CHECKING:
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
    from xlatent.csc.query import Catalogue, Limits, read_names, read_positions, write

    if sum(given is not None for given in (cone, names, classes)) > 1:
        abort("--cone, --names and --classes exclude each other; give one of them", USAGE)
    check_output(output, [".ecsv"])
    circle = None if cone is None else _cone(cone)
    listed = None if names is None else read_names(names)
    positions = None if classes is None else read_positions(classes)
    with _status() as on_status:
        catalogue = Catalogue(release, service, on_status)
        found = catalogue.select(Limits(min_significance, min_counts, max_theta), circle, listed, positions)
        on_status(f"writing {output}")
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
    from xlatent.csc.describe import describe_source, list_detections
    from xlatent.csc.query import Catalogue

    with _status() as on_status:
        source, detections = Catalogue(release, service, on_status).source(name)
    for title, text in describe_source(source):
        typer.echo(f"{title:<16}{text}")
    if not len(detections):
        typer.echo("No detection in a single observation is matched to this source only.")
        return
    print_table(list_detections(detections), words=())
    typer.echo("Livetime in s, theta in arcmin; counts net of background, flux in erg cm-2 s-1, all of band b.")
    typer.echo("Bands: b 0.5-7, s 0.5-1.2, m 1.2-2, h 2-7 keV; in parentheses 68 % limits.")


app.command()(fetch)
app.command()(label)


@contextmanager
def _status() -> Iterator[Callable[[str], None]]:
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
    return Cone(ra, dec, radius)
