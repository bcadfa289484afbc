"""The command ``xlatent``: its subcommands, and how errors, warnings and interrupts reach the user."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from xlatent.cli import catalog, csc
from xlatent.cli.accretion import accretion
from xlatent.cli.build import build
from xlatent.cli.classify import classify
from xlatent.cli.cluster import cluster
from xlatent.cli.compare_models import compare_models
from xlatent.cli.demo import demo
from xlatent.cli.embed import embed
from xlatent.cli.evaluate import evaluate
from xlatent.cli.export import export
from xlatent.cli.formulas import formulas
from xlatent.cli.info import info
from xlatent.cli.information import information
from xlatent.cli.neighbours import neighbours
from xlatent.cli.outliers import outliers
from xlatent.cli.regress import regress
from xlatent.cli.show import show
from xlatent.cli.simulate import simulate
from xlatent.cli.tracks import tracks
from xlatent.cli.train import train
from xlatent.cli.ui import FAILED, INTERRUPTED, USAGE, abort, echo_status
from xlatent.core.errors import InputError, ReadError, ResponseError, WorkerError, XlatentError
from xlatent.core.messages import redirect_warnings


class _Plain(TyperGroup):
    """A group of commands in which what a user can put right is told in one sentence, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with redirect_warnings(lambda text: echo_status(f"warning: {text}")):
                return super().invoke(ctx)
        except XlatentError as error:
            failed = isinstance(error, ReadError | ResponseError | WorkerError) and not isinstance(error, InputError)
            abort(error, FAILED if failed else USAGE)
        except BrokenPipeError:
            raise  # the reader of a pipe has left; click knows what to do
        except OSError as error:
            abort(f"{error.filename or 'a file'}: {error.strerror or error}; choose another path", USAGE)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(cls=_Plain, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
for _command in (
    embed, build, show, info, demo, simulate, train, export, compare_models,
    cluster, classify, regress, information, neighbours, outliers, tracks, accretion, formulas,
    evaluate,
):  # fmt: skip
    app.command()(_command)
app.add_typer(csc.app, name="csc")
app.add_typer(catalog.app, name="catalog")


def _version(wanted: bool) -> bool:
    if wanted:
        from xlatent.core.version import __version__

        typer.echo(f"xlatent {__version__}")
        raise typer.Exit
    return wanted


@app.callback(no_args_is_help=True)
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """X-ray spectra to eight latent variables with error bars, whichever instrument took them."""
