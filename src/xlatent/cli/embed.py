"""``xlatent embed``: spectra in, a table of latents out; one that fails does not stop the others."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlatent.cli.summary import COUNTED, MANY, SHOWN, summarise
from xlatent.cli.ui import FAILED, USAGE, abort, echo_status, progress_bar
from xlatent.core.errors import ReadError, WriteError
from xlatent.core.messages import redirect_warnings
from xlatent.core.outputs import TABLES, check_output
from xlatent.workflows.failures import Failure, write_failures
from xlatent.workflows.parallel import in_order, one_thread_each
from xlatent.workflows.tasks import (
    Done,
    Embedded,
    Rows,
    Settings,
    Task,
    embed_part,
    embed_task,
    rows_of,
    settings_of,
    tasks_for_parts,
    tasks_for_table,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from xlatent.core.latents import LatentTable
    from xlatent.formats.inputs import Source
    from xlatent.formats.partitions import EmbeddingInfo

_PATIENCE = 2.0  # seconds before a progress bar is worth showing


class Format(StrEnum):
    """Of a folder, other than the parts that workers write."""

    HATS = "hats"


class Kind(StrEnum):
    """Of posterior, as `LatentModel.embed` takes it."""

    GAUSSIAN = "gaussian"
    EXACT = "exact"


def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="PHA files, folders, patterns, manifests (CSV), or stores (folders or URLs).",
            show_default=False,
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            help=f"Table to write ({', '.join(TABLES)}); or, ending with '/', a folder or URL for one Parquet part of "
            "each shard: given again, the command does what is missing.",
            show_default=False,
        ),
    ],
    layout: Annotated[
        Format | None,
        typer.Option("--format", help="hats: the folder becomes a HATS catalogue, which LSDB cross-matches."),
    ] = None,
    refine: Annotated[bool, typer.Option(help="Go on from the encoder's proposal to the exact posterior.")] = True,
    posterior: Annotated[
        Kind, typer.Option(help="Normal distribution at the mode, or draws from the exact one (a second a spectrum).")
    ] = Kind.GAUSSIAN,
    model: Annotated[
        str | None, typer.Option(help="Name of a model or folder of a bundle; the shipped one if not given.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Address of a Dask scheduler (tcp://...), whose workers then do it; into a folder or URL."),
    ] = None,
    failures: Annotated[
        Path | None, typer.Option(help="CSV file for the names, files and reasons of spectra that failed.")
    ] = None,
    arf: Annotated[Path | None, typer.Option(help="ARF of every spectrum of this call, or 'none'.")] = None,
    rmf: Annotated[Path | None, typer.Option(help="RMF of every spectrum of this call, or 'none'.")] = None,
    background: Annotated[
        Path | None, typer.Option(help="Background of every spectrum of this call, or 'none'.")
    ] = None,
) -> None:
    """Embed spectra: eight latents with uncertainties, fluxes and a fit statistic for each, as a table.

    Exit status: 0 all spectra embedded; 1 some failed and the others were written; 2 nothing was done.
    """
    one_thread_each()
    if layout is not None:
        from xlatent.formats import hats

        hats.check(output)
    folder = layout is not None or _is_folder(output)
    if not folder:
        if scheduler is not None:
            raise WriteError(
                f"--scheduler has workers write the parts of a folder or URL, and --output is {output}; end it with /"
            )
        check_output(Path(output), TABLES)
    if scheduler is not None and workers > 1:
        abort("--workers are processes here, and --scheduler has its own; leave one of them out", USAGE)
    if failures is not None:
        check_output(failures, (".csv",))
    options = {"arf": arf, "rmf": rmf, "background": background}
    given: dict[str, Any] = {key: file for key, file in options.items() if file is not None}
    try:
        found = _find(inputs, given)
    except ReadError as error:
        abort(error, USAGE)
    settings = settings_of(model or _default_model(), refine, posterior)
    if layout is not None:
        n_done, failed = _to_hats(found, settings, Path(output), workers, scheduler)
    elif folder:
        n_done, failed = _to_parts(found, settings, output, workers, scheduler)
    else:
        n_done, failed = _to_table(found, settings, Path(output), workers)
    if failures is not None:
        write_failures(failed, failures)
    _tell_failures(failed)
    if failed:
        written = "the others were written" if n_done else f"{output} was not written"
        abort(f"{len(failed)} of {len(failed) + n_done} spectra could not be embedded; {written}", FAILED)


def _default_model() -> str:
    from xlatent.core.bundle import DEFAULT_MODEL

    return DEFAULT_MODEL


def _is_folder(output: str) -> bool:
    """Whether the output is a folder or URL for parts, as against one file."""
    from xlatent.formats.partitions import is_url

    if is_url(output) and Path(output).suffix in TABLES:
        raise WriteError(f"{output}: a table is written to a file here, and parts to a URL; leave the suffix away")
    return output.endswith("/") or is_url(output) or Path(output).is_dir()


def _find(inputs: Sequence[str], given: dict[str, Any]) -> "list[Source | Rows]":
    """Files and shards of stores, in the order of the inputs."""
    from xlatent.formats.inputs import find
    from xlatent.formats.store import is_store

    if not any(is_store(item) for item in inputs):
        return [replace(source, **given) for source in find(inputs)]
    if given:
        raise ReadError(f"--{next(iter(given))} goes with files, and a store is among the inputs; leave it out")
    found: list[Source | Rows] = []
    for item in inputs:
        if is_store(item):
            shards = rows_of(item)
            if not shards:
                raise ReadError(f"{item} should hold at least one spectrum, and it holds none; build it again")
            found.extend(shards)
        else:
            found.extend(find([item]))
    return found


def embed_sources(
    found: "Sequence[Source | Rows]",
    model: str | None = None,
    *,
    refine: bool = True,
    posterior: str = Kind.GAUSSIAN,
    workers: int = 1,
) -> "tuple[LatentTable | None, list[Failure]]":
    """Read and embed spectra, with a progress bar on stderr where it takes long.

    Parameters
    ----------
    found : sequence of Source or Rows
        Files, or rows of stores as `tasks.rows_of` gives them.
    model : str, optional
        Name or folder; the shipped model if not given.
    refine, posterior
        As in `LatentModel.embed`.
    workers : int
        Number of processes.

    Returns
    -------
    table : LatentTable or None
        Rows in the order of the sources, those that failed left out; None if all failed.
    failures : list of Failure

    Raises
    ------
    ModelError
        If there is no such model, or it is damaged.
    ParameterError
        If the model has no such posterior.
    """
    import pyarrow as pa

    from xlatent.formats.latent_tables import from_arrow

    failed: list[Failure] = []
    settings = settings_of(model or _default_model(), refine, posterior)
    rows = pa.concat_tables(_rows(found, settings, workers, failed))
    return (from_arrow(rows) if rows.num_rows else None), failed


def _rows(
    found: "Sequence[Source | Rows]", settings: Settings, workers: int, failed: list[Failure]
) -> "Iterator[pa.Table]":
    """Latents in the order of the sources, a task at a time."""
    tasks = tasks_for_table(found, settings.posterior == Kind.EXACT, workers)
    results = in_order(partial(embed_task, settings), tasks, workers)
    with _followed(sum(task.size for task in tasks)) as follow:
        for task, result in zip(tasks, results, strict=True):
            failed.extend(result.failures)
            follow(task, result)
            yield result.rows


def _to_table(
    found: "Sequence[Source | Rows]", settings: Settings, output: Path, workers: int
) -> tuple[int, list[Failure]]:
    """Embed into one file and say what is in it."""
    import pyarrow as pa

    from xlatent.formats import latent_tables

    failed: list[Failure] = []
    few: list[pa.Table] = []
    many: list[pa.Table] = []

    def noted() -> "Iterator[pa.Table]":
        """The rows, of which is kept what the terminal shows."""
        n_rows = 0
        for rows in _rows(found, settings, workers, failed):
            n_rows += rows.num_rows
            many.append(rows.select(COUNTED))
            if n_rows <= MANY:
                few.append(rows.select(SHOWN))
            yield rows

    if output.suffix == ".parquet":
        n_rows = latent_tables.write_stream(noted(), output)
    else:
        rows = pa.concat_tables(noted())
        if n_rows := rows.num_rows:
            latent_tables.write(latent_tables.from_arrow(rows), output)
    if n_rows:
        if n_rows > MANY:
            summarise({name: column.to_numpy() for name, column in _by_name(many)})
        else:
            summarise({name: column.to_pylist() for name, column in _by_name(few)})
        typer.echo(f"{n_rows} {'spectrum' if n_rows == 1 else 'spectra'} written to {output}")
    return n_rows, failed


def _by_name(parts: "list[pa.Table]") -> "Iterator[tuple[str, pa.ChunkedArray]]":
    import pyarrow as pa

    rows = pa.concat_tables(parts)
    return zip(rows.column_names, rows.columns, strict=True)


def _to_parts(
    found: "Sequence[Source | Rows]", settings: Settings, output: str, workers: int, scheduler: str | None
) -> tuple[int, list[Failure]]:
    """Embed into a folder of parts, of which those that are there already are left alone."""
    from xlatent.formats.partitions import Parts, is_url

    if not is_url(output):
        output = str(Path(output).resolve())
    # Workers elsewhere start from another folder.
    found = [_absolute(one) for one in found]
    tasks = tasks_for_parts(found, settings.posterior == Kind.EXACT)
    parts = Parts(output)
    parts.begin(_description(tasks, settings))
    # A part without rows may be that of a shard which could not be read: it is tried again.
    known = {file: there for file, there in parts.written(task.part for task in tasks).items() if there.rows}
    failed = {file: [Failure(*failure) for failure in there.failures] for file, there in known.items()}
    rows = {file: there.rows for file, there in known.items()}
    waiting = [task for task in tasks if task.part not in known]
    work = partial(embed_part, settings, output)
    with _followed(sum(task.size for task in waiting)) as follow:
        if scheduler is None:
            results: Iterator[tuple[Task, Done]] = zip(waiting, in_order(work, waiting, workers), strict=True)
        else:
            from xlatent.workflows.dask_cluster import on_cluster

            results = on_cluster(scheduler, work, waiting, parts, echo_status)
        for task, done in results:
            failed[task.part] = done.failures
            if done.written:
                rows[task.part] = done.n_rows
            follow(task, done)
    if absent := parts.missing(rows):
        abort(
            f"{len(absent)} parts were written, and {absent[0]} is not in {output}: the workers see another folder by "
            "that name; give one that all share, or a URL",
            FAILED,
        )
    if len(rows) == len(tasks):
        parts.sweep()
    n_done = sum(rows.values())
    there_already = f" ({len(known)} of them were there already)" if known else ""
    typer.echo(
        f"{n_done} {'spectrum' if n_done == 1 else 'spectra'} in {len(rows)} of {len(tasks)} parts of {output}"
        f"{there_already}"
    )
    return n_done, [failure for task in tasks for failure in failed[task.part]]


def _to_hats(
    found: "Sequence[Source | Rows]", settings: Settings, output: Path, workers: int, scheduler: str | None
) -> tuple[int, list[Failure]]:
    """Embed into parts, and make a HATS catalogue of them; if that fails, the parts are still there."""
    import shutil

    from xlatent.formats import hats

    parts = output.with_name(f"{output.name}.parts")
    n_done, failed = _to_parts(found, settings, f"{parts}/", workers, scheduler)
    if n_done:
        with redirect_warnings(lambda text: echo_status(f"warning: {text}")):
            hats.write(parts, output, progress=sys.stderr.isatty())
        shutil.rmtree(parts)
        typer.echo(f"HATS catalogue written to {output}")
    return n_done, failed


def _absolute(one: "Source | Rows") -> "Source | Rows":
    """The same wherever a worker was started."""
    from xlatent.formats.companions import is_none
    from xlatent.formats.partitions import is_url

    if isinstance(one, Rows):
        return one if is_url(one.store) else one._replace(store=str(Path(one.store).resolve()))
    files = {key: getattr(one, key) for key in ("pha", "arf", "rmf", "background")}
    there = {key: file if file is None or is_none(file) else file.absolute() for key, file in files.items()}
    return replace(one, **there)


def _description(tasks: Sequence[Task], settings: Settings) -> "EmbeddingInfo":
    """What the folder says of itself; a command with another one is not its continuation."""
    import hashlib

    from xlatent.formats.partitions import EmbeddingInfo, PartInfo

    infos = []
    for task in tasks:
        if isinstance(task.of, Rows):
            origin, digest = task.of.store, task.of.shard.sha256
        else:
            # Of files the names stand for them: to read them all would take as long as to embed them.
            origin, digest = "files", hashlib.sha256(repr(task.of).encode()).hexdigest()
        infos.append(PartInfo(file=task.part, input=origin, rows=task.size, sha256=digest))
    return EmbeddingInfo(
        software=settings.software,
        model=settings.model,
        model_sha256=settings.model_sha256,
        refine=settings.refine,
        posterior=settings.posterior,
        parts=tuple(infos),
    )


@contextmanager
def _followed(total: int) -> Iterator[Callable[[Task, Embedded | Done], None]]:
    """Tell each warning once, and show progress where it takes long."""
    told: set[str] = set()
    began = time.monotonic()
    n_done = 0
    advance: Callable[[int], None] | None = None
    with ExitStack() as open_bars:

        def follow(task: Task, result: Embedded | Done) -> None:
            nonlocal n_done, advance
            for text in result.warnings:
                if text not in told:
                    echo_status(f"warning: {text}")
            told.update(result.warnings)
            n_done += task.size
            if advance is None and time.monotonic() - began > _PATIENCE:
                advance = open_bars.enter_context(progress_bar("spectra", total))
            if advance is not None:
                advance(n_done)

        yield follow


def _tell_failures(failed: Sequence[Failure]) -> None:
    """Say what failed, and why; what failed for one reason, such as the rows of a damaged shard, together."""
    alike: dict[tuple[str, str], list[str]] = {}
    for failure in failed:
        alike.setdefault((failure.file, failure.reason), []).append(failure.name)
    for (_, reason), names in alike.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        echo_status(f"failed: {names[0]}{others}: {reason}")
