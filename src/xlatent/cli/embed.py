"""``xlatent embed``: spectra in, a table of latents out; one that fails does not stop the others."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import typer

from xlatent.cli import FAILED, USAGE, check_output, progress_bar, stop, tell, warnings_to
from xlatent.cli.summary import summarise
from xlatent.errors import ReadError, WriteError, XlatentError

if TYPE_CHECKING:
    from xlatent.formats.inputs import Source
    from xlatent.formats.store import Store
    from xlatent.infer.embed import LatentModel
    from xlatent.latents import LatentTable
    from xlatent.spectrum import Response, Spectrum

TABLES = (".parquet", ".fits", ".vot", ".ecsv")
BATCH = 16  # spectra at a time: what a worker takes, and what is in memory at once
_PATIENCE = 2.0  # seconds before a progress bar is worth showing

Item = TypeVar("Item")
Result = TypeVar("Result")


class Kind(StrEnum):
    """Of posterior, as `LatentModel.embed` takes it."""

    GAUSSIAN = "gaussian"
    EXACT = "exact"


class Failure(NamedTuple):
    """A spectrum that was not embedded, and why."""

    name: str
    file: str
    reason: str


class Row(NamedTuple):
    """A spectrum of a store."""

    store: str
    place: int


class _Outcome(NamedTuple):
    tables: "list[LatentTable]"
    failures: list[Failure]
    warnings: list[str]
    n_sources: int


def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="PHA files, folders, patterns, manifests (CSV), or stores (folders or URLs).",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option(help=f"Table to write: {', '.join(TABLES)}.", show_default=False)],
    refine: Annotated[bool, typer.Option(help="Go on from the encoder's proposal to the exact posterior.")] = True,
    posterior: Annotated[
        Kind, typer.Option(help="Normal distribution at the mode, or draws from the exact one (a second a spectrum).")
    ] = Kind.GAUSSIAN,
    model: Annotated[
        str | None, typer.Option(help="Name of a model or folder of a bundle; the shipped one if not given.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
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
    check_output(output, TABLES)
    if failures is not None:
        check_output(failures, (".csv",))
    from xlatent.formats import tables

    options = {"arf": arf, "rmf": rmf, "background": background}
    given: dict[str, Any] = {key: file for key, file in options.items() if file is not None}
    try:
        sources = _find(inputs, given)
    except ReadError as error:
        stop(error, USAGE)
    table, failed = embed_sources(sources, model, refine=refine, posterior=posterior, workers=workers)
    if table is not None:
        tables.write(table, output)
        summarise(table)
        typer.echo(f"{len(table)} {'spectrum' if len(table) == 1 else 'spectra'} written to {output}")
    if failures is not None:
        write_failures(failed, failures)
    for failure in failed:
        tell(f"failed: {failure.name}: {failure.reason}")
    if failed:
        written = "the others were written" if table is not None else f"{output} was not written"
        stop(f"{len(failed)} of {len(failed) + len(table or ())} spectra could not be embedded; {written}", FAILED)


def _find(inputs: Sequence[str], given: dict[str, Any]) -> "list[Source | Row]":
    """Spectra of files and stores, in the order of the inputs."""
    from xlatent.formats.inputs import find
    from xlatent.formats.store import is_store

    if not any(is_store(item) for item in inputs):
        return [replace(source, **given) for source in find(inputs)]
    if given:
        raise ReadError(f"--{next(iter(given))} goes with files, and a store is among the inputs; leave it out")
    found: list[Source | Row] = []
    for item in inputs:
        if is_store(item):
            if not len(_opened(item)):
                raise ReadError(f"{item} should hold at least one spectrum, and it holds none; build it again")
            found.extend(Row(item, place) for place in range(len(_opened(item))))
        else:
            found.extend(find([item]))
    return found


def embed_sources(
    sources: "Sequence[Source | Row]",
    model: str | None = None,
    *,
    refine: bool = True,
    posterior: str = Kind.GAUSSIAN,
    workers: int = 1,
) -> "tuple[LatentTable | None, list[Failure]]":
    """Read and embed spectra, with a progress bar on stderr where it takes long.

    Parameters
    ----------
    sources : sequence of Source or Row
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
    from xlatent.bundle import DEFAULT_MODEL

    model = model or DEFAULT_MODEL
    # A model that is not there, or cannot do it, is told before anything is read.
    _loaded(model).check_posterior(posterior, refine)
    size = 1 if posterior == Kind.EXACT else BATCH
    done: list[LatentTable] = []
    failed: list[Failure] = []
    told: set[str] = set()
    with ExitStack() as open_bars:
        advance, began = None, time.monotonic()
        n_done = 0
        for outcome in in_order(partial(_embed_chunk, model, refine, posterior), batches(sources, size), workers):
            done.extend(outcome.tables)
            failed.extend(outcome.failures)
            for text in outcome.warnings:
                if text not in told:
                    tell(f"warning: {text}")
            told.update(outcome.warnings)
            n_done += outcome.n_sources
            if advance is None and time.monotonic() - began > _PATIENCE:
                advance = open_bars.enter_context(progress_bar("spectra", len(sources)))
            if advance is not None:
                advance(n_done)
    return (_joined(done) if done else None), failed


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut items into lists of some length; the last may be shorter."""
    waiting = iter(items)
    while batch := list(islice(waiting, size)):
        yield batch


def in_order(work: Callable[[Item], Result], batches: Iterable[Item], workers: int) -> Iterator[Result]:
    """Results of some work on all batches, in order, from this process or from several; few are in memory at once."""
    if workers == 1:
        yield from map(work, batches)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    # One thread each: the variables are read when a worker loads its libraries.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_live_with_parent)
    waiting: deque = deque()
    try:
        for batch in batches:
            waiting.append(pool.submit(work, batch))
            if len(waiting) >= 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        stop("a worker process died, perhaps for want of memory; use fewer --workers", FAILED)
    finally:
        pool.shutdown(cancel_futures=True)


def _live_with_parent() -> None:
    """Leave interrupts to the parent process, and end when it is killed."""
    import multiprocessing
    import signal
    from threading import Thread

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(FAILED)

    Thread(target=follow, daemon=True).start()


@cache
def _loaded(model: str) -> "LatentModel":
    """Load a model once in each process."""
    from xlatent.infer.embed import load_model

    return load_model(model, threads=1)


@cache
def _opened(store: str) -> "Store":
    """Open a store once in each process."""
    from xlatent.formats.store import open_store

    return open_store(store)


@cache
def _nominal_response(year: int) -> "Response":
    """Response that stands in where a file has none: ACIS, back-illuminated chip, on axis."""
    from xlatent.simulate import acis

    return acis.response("BI", float(year))


def _embed_chunk(model: str, refine: bool, posterior: str, sources: "Sequence[Source | Row]") -> _Outcome:
    """Read some spectra and embed those that could be read."""
    from xlatent.formats import multimodal_universe
    from xlatent.formats.ogip import read

    spectra: list[Spectrum] = []
    outcome = _Outcome([], [], [], len(sources))
    with warnings_to(outcome.warnings.append):
        for source in sources:
            try:
                if isinstance(source, Row):
                    spectra.append(_opened(source.store)[source.place])
                    continue
                if source.pha.suffix in (".hdf5", ".h5"):
                    # A model with a likelihood wants the groups as they are; others want a curve without holes.
                    curve = not (refine and _loaded(model).info.probabilistic)
                    spectra.extend(multimodal_universe.read(source.pha, _nominal_response, spread=curve))
                    continue
                found = read(source.pha, source.arf, source.rmf, source.background, source.name)
                spectra.extend(found if isinstance(found, list) else [found])
            except Exception as error:
                name, file = (
                    (f"row {source.place}", source.store) if isinstance(source, Row) else (source.name, source.pha)
                )
                outcome.failures.append(Failure(name, str(file), reason_of(error)))
        _embed_all(_loaded(model), refine, posterior, spectra, outcome)
    return outcome


def _embed_all(
    model: "LatentModel", refine: bool, posterior: str, spectra: "list[Spectrum]", outcome: _Outcome
) -> None:
    """Embed spectra together or, if one of them cannot be, each alone."""
    try:
        if spectra:
            outcome.tables.append(model.embed(spectra, refine=refine, posterior=posterior))
    except Exception as error:
        if len(spectra) > 1:
            for spectrum in spectra:
                _embed_all(model, refine, posterior, [spectrum], outcome)
        else:
            file = str(spectra[0].meta.get("file", ""))
            outcome.failures.append(Failure(spectra[0].name, file, reason_of(error)))


def reason_of(error: Exception) -> str:
    """What to say of an error: one sentence, also where the fault is ours."""
    if isinstance(error, XlatentError):
        return str(error)
    text = " ".join(str(error).split())
    return f"unexpected {type(error).__name__} ({text}), a fault of xlatent; please report it with the file"


def _joined(parts: "list[LatentTable]") -> "LatentTable":
    from astropy.table import vstack

    from xlatent.latents import LatentTable

    rows = vstack([part.to_astropy() for part in parts], metadata_conflicts="silent")
    return LatentTable(rows, parts[0].meta)


def write_failures(failures: list[Failure], path: Path) -> None:
    """Write failures as CSV, whole or not at all."""
    import csv

    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with unfinished.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([Failure._fields, *failures])
        unfinished.replace(path)
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror}; choose another folder") from error
    finally:
        unfinished.unlink(missing_ok=True)
