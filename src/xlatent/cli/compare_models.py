"""``xlatent compare-models``: how the latents of two models relate."""

from typing import TYPE_CHECKING, Annotated

import typer

from xlatent.cli.ui import print_table, progress_bar

if TYPE_CHECKING:
    from xlatent.workflows.compare_models import ModelComparison


def compare_models(
    a: Annotated[str, typer.Argument(metavar="A", help="Name or folder of a model.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="Name or folder of another.", show_default=False)],
    spectra: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT",
            help="PHA files, a folder, a pattern or a manifest (CSV) of 50 or more spectra to compare them on, in "
            "place of 512 simulated spectra of 1,000 to 100,000 counts; may be given more than once.",
        ),
    ] = None,
) -> None:
    """Say how the latents of two models relate: embed the same 50 or more spectra with both and fit z_B = M z_A + b."""
    from xlatent.workflows import compare_models as workflow

    with progress_bar("spectra") as show:
        found = workflow.compare_models(a, b, spectra, progress=show)
    _print(found)


def _print(found: "ModelComparison") -> None:
    fit = found.fit
    n_b, n_a = fit.matrix.shape
    typer.echo(
        f"A = {found.a}, B = {found.b}, {found.n_spectra} spectra; z_B = M z_A + b, R² of spectra left out of the fit"
    )
    columns = {"B": [f"z{i}" for i in range(n_b)]}
    columns |= {f"M z{j}": [f"{value:+.2f}" for value in fit.matrix[:, j]] for j in range(n_a)}
    columns |= {
        "b": [f"{value:+.2f}" for value in fit.offset],
        "R²": [f"{value:.3f}" for value in fit.r2],
        "best match in A": [f"z{place}" if place >= 0 else "none" for place in fit.match],
        "correlation": [f"{value:+.3f}" for value in fit.correlation],
    }
    print_table(columns, words=())
    typer.echo("R² of A from B: " + ", ".join(f"z{j} {value:.3f}" for j, value in enumerate(fit.r2_back)))
