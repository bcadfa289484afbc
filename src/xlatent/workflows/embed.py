"""Embedding many spectra: files or stores in; a table, parts of one or a HATS catalogue out."""

import hashlib
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlatent.core.errors import InputError, ParameterError, ReadError, WorkerError, WriteError
from xlatent.core.outputs import TABLES, check_output
from xlatent.workflows.embedder import Embedder, PartResult
from xlatent.workflows.notices import Failure, Notice, Notices
from xlatent.workflows.parallel import check_workers, in_order
from xlatent.workflows.tasks import (
    Settings,
    ShardSlice,
    Task,
    check_settings,
    shard_slices,
    tasks_for_parts,
    tasks_for_table,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from xlatent.core.latents import LatentTable
    from xlatent.formats.inputs import Source
    from xlatent.formats.partitions import EmbeddingInfo, PartitionedTable

Progress = Callable[[int, int], None]

# Quiet unless the program that uses xlatent sets up logging.
_LOG = logging.getLogger("xlatent")
_LOG.addHandler(logging.NullHandler())

# Rows that stay in memory while they are streamed to a file: 30 MB. More are read from it when they are wanted.
_HELD = 2**15


@dataclass(frozen=True)
class EmbeddingResult:
    """What `embed_files` did.

    Attributes
    ----------
    output : Path, str or None
        What was written: a file, a folder or a URL; None if the table was only returned.
    n_embedded : int
        Spectra with a row, those of parts that were there before included.
    failures : tuple of Failure
        Name, file and reason of each spectrum without a row.
    warnings : tuple of Notice
        Name, file, text and kind of each warning; of parts that were there before they are not known any more.
    n_parts, n_parts_written, n_parts_known : int
        Parts of the whole, those that are there now, and those among them that were there before; 0 for one table.
    """

    output: Path | str | None
    n_embedded: int
    failures: tuple[Failure, ...]
    warnings: tuple[Notice, ...] = ()
    n_parts: int = 0
    n_parts_written: int = 0
    n_parts_known: int = 0
    _rows: "pa.Table | None" = field(default=None, repr=False)

    def __repr__(self) -> str:
        """Counts, and where the rows are."""
        place = f", written to {self.output}" if self.output is not None and self.n_embedded else ""
        return f"<EmbeddingResult: {self.n_embedded} embedded, {len(self.failures)} failed{place}>"

    @cached_property
    def table(self) -> "LatentTable | None":
        """The rows, in the order of the spectra, if many read from where they were written; None if all failed.

        Raises
        ------
        ReadError
            If they were written as parts of which some are missing, or are not there any more.
        ParameterError
            If they were written as a HATS catalogue.
        """
        from xlatent.formats import latent_tables

        if self._rows is not None:
            return latent_tables.from_arrow(self._rows)
        if self.output is None or not self.n_embedded:
            return None
        if (Path(self.output) / "collection.properties").is_file():
            raise ParameterError(f"{self.output} is a HATS catalogue; open it with lsdb.open_catalog")
        return latent_tables.read(self.output)

    def columns(self, names: Sequence[str]) -> dict[str, list[Any]]:
        """Some columns of a table, as lists, without those beside them being read.

        Parameters
        ----------
        names : sequence of str
            Of columns that are there.
        """
        import pyarrow.parquet as pq

        rows = self._rows if self._rows is not None else pq.read_table(self.output, columns=list(names))
        return {name: rows.column(name).to_pylist() for name in names}


def embed_files(
    inputs: str | Path | Sequence[str | Path],
    output: str | Path | None = None,
    *,
    model: str | Path | None = None,
    refine: bool = True,
    posterior: str = "gaussian",
    workers: int = 1,
    scheduler: str | None = None,
    layout: str | None = None,
    arf: str | Path | None = None,
    rmf: str | Path | None = None,
    background: str | Path | None = None,
    progress: Progress | None = None,
    on_status: Callable[[str], None] | None = None,
) -> EmbeddingResult:
    """Embed the spectra of files and stores into a table of latents; one that fails does not stop the others.

    Into a folder or URL the rows are written as parts, each whole or not at all: ended in whatever way and called
    again with the same arguments, it does what is missing.

    Parameters
    ----------
    inputs : str or Path, or sequence of them
        PHA files, folders, patterns, manifests (CSV), or stores (folders or URLs).
    output : str or Path, optional
        Table to write, ``.parquet``, ``.fits``, ``.vot`` or ``.ecsv``; or, ending with ``/`` or being there, a folder,
        or a URL, for one Parquet part of each shard. Not given, the table is only returned.
    model : str or Path, optional
        Name of a model or folder of a bundle; the shipped one if not given.
    refine : bool
        Go on from the encoder's proposal to the exact posterior.
    posterior : str
        ``"gaussian"`` or ``"exact"``, as in `LatentModel.embed`.
    workers : int
        Processes. A script that asks for several keeps its own work under ``if __name__ == "__main__":``.
    scheduler : str, optional
        Address of a Dask scheduler (``tcp://...``), whose workers then do it; into a folder or URL that all see.
    layout : str, optional
        ``"hats"``: the folder becomes a HATS catalogue.
    arf, rmf, background : str or Path, optional
        Of every spectrum of this call, in place of those its header names; ``"none"`` for none.
    progress : callable, optional
        Called with the number of spectra done and of all that are to be done.
    on_status : callable, optional
        Called with sentences on how a cluster is; the log ``xlatent`` gets them if not given.

    Returns
    -------
    EmbeddingResult
        With ``table``, ``failures`` and counts.

    Raises
    ------
    InputError
        If an input is missing or holds nothing of use.
    ModelError
        If there is no such model, or it is damaged.
    ParameterError
        If the arguments do not go together, the model has no such posterior, or what a cluster needs is missing.
    WriteError
        If the output cannot be written, or was begun as another embedding.
    WorkerError
        If a process dies, or the cluster is lost.

    Warns
    -----
    XlatentWarning
        What was repaired in reading; of many files one for each kind of warning.

    Examples
    --------
    >>> from importlib.resources import files
    >>> import xlatent as xl
    >>> result = xl.embed_files(files("xlatent") / "sample")
    >>> result.n_embedded, result.failures
    (6, ())
    >>> result.table.z.shape
    (6, 8)
    """
    check_workers(workers)
    run = _Run(progress, on_status or _LOG.info)
    folder = _check_output(output, layout, scheduler, workers)
    options = {"arf": arf, "rmf": rmf, "background": background}
    given: dict[str, Any] = {key: Path(file) for key, file in options.items() if file is not None}
    items = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if not items:
        raise InputError("there are no spectra to embed; give files, folders, patterns, manifests or stores")
    with run.notices.collect():
        found = _find([str(item) for item in items], given)
    embedder = Embedder(_settings(model, refine, posterior))
    if layout is not None:
        result = _to_hats(run, found, embedder, Path(str(output)), workers, scheduler)
    elif folder:
        result = _to_parts(run, found, embedder, str(output), workers, scheduler)
    else:
        result = _to_table(run, found, embedder, None if output is None else Path(output), workers)
    run.notices.warn()
    return replace(result, warnings=tuple(run.notices))


class _Run:
    """What is told of a run while it lasts."""

    def __init__(self, progress: Progress | None, on_status: Callable[[str], None]) -> None:
        self.notices = Notices()
        self.progress = progress
        self.on_status = on_status

    def follow(self, tasks: Sequence[Task]) -> Callable[[Task, Sequence[Notice]], None]:
        """Return a function to be called with each task that is done and the warnings that came of it."""
        total = sum(task.size for task in tasks)
        n_done = 0

        def advance(task: Task, notices: Sequence[Notice]) -> None:
            nonlocal n_done
            self.notices.extend(notices)
            n_done += task.size
            if self.progress is not None:
                self.progress(n_done, total)

        return advance


def _check_output(output: str | Path | None, layout: str | None, scheduler: str | None, workers: int) -> bool:
    """Make sure, before any work, that the output goes with the rest; tell whether it is a folder or URL for parts."""
    if layout not in (None, "hats"):
        raise ParameterError(f"the layout of a folder should be 'hats', or none, and it is {layout!r}")
    if layout is not None:
        from xlatent.formats import hats

        if output is None:
            raise ParameterError("a HATS catalogue needs a folder to be written to; give an output")
        hats.check(output)
    folder = layout is not None or (output is not None and _is_folder(str(output)))
    if not folder:
        if scheduler is not None:
            raise WriteError(
                f"--scheduler has workers write the parts of a folder or URL, and --output is {output}; end it with /"
            )
        if output is not None:
            check_output(output, TABLES)
    if scheduler is not None and workers > 1:
        raise ParameterError("--workers are processes here, and --scheduler has its own; leave one of them out")
    return folder


def _is_folder(output: str) -> bool:
    from xlatent.formats.described_folder import is_url

    if is_url(output) and Path(output).suffix in TABLES:
        raise WriteError(f"{output}: a table is written to a file here, and parts to a URL; leave the suffix away")
    return output.endswith("/") or is_url(output) or Path(output).is_dir()


def _settings(model: str | Path | None, refine: bool, posterior: str) -> Settings:
    from xlatent.core.bundle import DEFAULT_MODEL

    return check_settings(DEFAULT_MODEL if model is None else str(model), refine, posterior)


def _find(inputs: Sequence[str], given: dict[str, Any]) -> "list[Source | ShardSlice]":
    """Files and shards of stores, in the order of the inputs."""
    from xlatent.formats.inputs import find
    from xlatent.formats.store import is_store

    try:
        if not any(is_store(item) for item in inputs):
            return [replace(source, **given) for source in find(inputs)]
        if given:
            raise ReadError(f"--{next(iter(given))} goes with files, and a store is among the inputs; leave it out")
        found: list[Source | ShardSlice] = []
        for item in inputs:
            if is_store(item):
                shards = shard_slices(item)
                if not shards:
                    raise ReadError(f"{item} should hold at least one spectrum, and it holds none; build it again")
                found.extend(shards)
            else:
                found.extend(find([item]))
    except ReadError as error:
        raise InputError(str(error)) from error
    return found


def _to_table(
    run: _Run, found: "Sequence[Source | ShardSlice]", embedder: Embedder, output: Path | None, workers: int
) -> EmbeddingResult:
    """Embed into one table."""
    import pyarrow as pa

    from xlatent.formats import latent_tables

    streamed = output is not None and output.suffix == ".parquet"
    failures: list[Failure] = []
    held: list[pa.Table] | None = []

    def embedded() -> "Iterator[pa.Table]":
        """The rows, kept in memory unless they are many and in a file."""
        nonlocal held
        n_rows = 0
        tasks = tasks_for_table(found, embedder.settings.posterior == "exact", workers)
        follow = run.follow(tasks)
        for task, result in zip(tasks, in_order(embedder.embed, tasks, workers), strict=True):
            failures.extend(result.failures)
            follow(task, result.notices)
            n_rows += result.rows.num_rows
            if streamed and n_rows > _HELD:
                held = None
            if held is not None:
                held.append(result.rows)
            yield result.rows

    if output is not None and streamed:
        n_rows = latent_tables.write_stream(embedded(), output)
    else:
        rows = pa.concat_tables(embedded())
        n_rows = rows.num_rows
        if output is not None and n_rows:
            latent_tables.write(latent_tables.from_arrow(rows), output)
    kept = pa.concat_tables(held) if held and n_rows else None
    return EmbeddingResult(output, n_rows, tuple(failures), _rows=kept)


def _to_parts(
    run: _Run,
    found: "Sequence[Source | ShardSlice]",
    embedder: Embedder,
    output: str,
    workers: int,
    scheduler: str | None,
) -> EmbeddingResult:
    """Embed into a folder of parts, of which those that are there already are left alone."""
    from xlatent.formats.described_folder import is_url
    from xlatent.formats.partitions import PartitionedTable

    if not is_url(output):
        output = str(Path(output).resolve())
    # Workers elsewhere start from another folder.
    tasks = tasks_for_parts([_absolute(one) for one in found], embedder.settings.posterior == "exact")
    parts = PartitionedTable(output)
    parts.create_or_resume(_description(tasks, embedder.settings))
    known = _completed(parts, [task.part for task in tasks])
    done = dict(known)
    waiting = [task for task in tasks if task.part not in known]
    follow = run.follow(waiting)
    if scheduler is None:
        work = partial(embedder.embed_part, output)
        results: Iterator[tuple[Task, PartResult]] = zip(waiting, in_order(work, waiting, workers), strict=True)
    else:
        from xlatent.workflows.dask_cluster import embed_on_cluster

        look = partial(_completed, parts)
        results = embed_on_cluster(scheduler, embedder, output, waiting, look, run.on_status)
    for task, result in results:
        done[task.part] = result
        follow(task, result.notices)
    written = [part for part, result in done.items() if result.written]
    if absent := parts.missing(written):
        raise WorkerError(
            f"{len(absent)} parts were written, and {absent[0]} is not in {output}: the workers see another folder by "
            "that name; give one that all share, or a URL"
        )
    if len(written) == len(tasks):
        parts.remove_temporaries()
    return EmbeddingResult(
        output,
        sum(result.n_rows for result in done.values()),
        tuple(failure for task in tasks for failure in done[task.part].failures),
        n_parts=len(tasks),
        n_parts_written=len(written),
        n_parts_known=len(known),
    )


def _completed(parts: "PartitionedTable", files: Sequence[str]) -> dict[str, PartResult]:
    """Tell what those of some parts hold that are there."""
    # A part without rows may be that of a shard which could not be read: it is tried again.
    return {
        file: PartResult(there.rows, [Failure(*failure) for failure in there.failures], [])
        for file, there in parts.completed(files).items()
        if there.rows
    }


def _to_hats(
    run: _Run,
    found: "Sequence[Source | ShardSlice]",
    embedder: Embedder,
    output: Path,
    workers: int,
    scheduler: str | None,
) -> EmbeddingResult:
    """Embed into parts, and make a HATS catalogue of them; if that fails, the parts are still there."""
    from xlatent.formats import hats

    parts = output.with_name(f"{output.name}.parts")
    result = _to_parts(run, found, embedder, str(parts), workers, scheduler)
    if result.n_embedded:
        try:
            with run.notices.collect():
                # hats-import has a progress bar of its own.
                hats.write(parts, output, progress=run.progress is not None and sys.stderr.isatty())
        except WriteError as error:
            raise WriteError(f"{error}; the latents are in {parts}, which is read as a table is") from error
        shutil.rmtree(parts)
    return replace(result, output=output)


def _absolute(one: "Source | ShardSlice") -> "Source | ShardSlice":
    """The same wherever a worker was started."""
    from xlatent.formats.companions import is_none
    from xlatent.formats.described_folder import is_url

    if isinstance(one, ShardSlice):
        return one if is_url(one.store) else one._replace(store=str(Path(one.store).resolve()))
    files = {key: getattr(one, key) for key in ("pha", "arf", "rmf", "background")}
    there = {key: file if file is None or is_none(file) else file.absolute() for key, file in files.items()}
    return replace(one, **there)


def _description(tasks: Sequence[Task], settings: Settings) -> "EmbeddingInfo":
    """What the folder says of itself; a command with another one is not its continuation."""
    from xlatent.formats.partitions import EmbeddingInfo, PartInfo

    infos = []
    for task in tasks:
        if isinstance(task.of, ShardSlice):
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
