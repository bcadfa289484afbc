"""``xlatent embed``: spectra in, a table of latents out; one that fails does not stop the others."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from xlatent.cli import FAILED, USAGE, check_output, progress_bar, stop, tell, warnings_to
from xlatent.cli.summary import summarise
from xlatent.errors import ReadError, WriteError, XlatentError

if TYPE_CHECKING:
    from xlatent.formats.inputs import Source
    from xlatent.infer.embed import LatentModel
    from xlatent.latents import LatentTable
    from xlatent.spectrum import Spectrum

TABLES = (".parquet", ".fits", ".vot", ".ecsv")
_CHUNK = 16  # spectra at a time: what a worker takes, and what is in memory at once
_PATIENCE = 2.0  # seconds before a progress bar is worth showing


class Kind(StrEnum):
    """Of posterior, as `LatentModel.embed` takes it."""

    GAUSSIAN = "gaussian"
    EXACT = "exact"


class Failure(NamedTuple):
    """A spectrum that was not embedded, and why."""

    name: str
    file: str
    reason: str


class _Outcome(NamedTuple):
    tables: "list[LatentTable]"
    failures: list[Failure]
    warnings: list[str]
    n_sources: int


def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="PHA files, folders, patterns or manifests (CSV).", show_default=False),
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
    from xlatent.formats.inputs import find

    options = {"arf": arf, "rmf": rmf, "background": background}
    given: dict[str, Any] = {key: file for key, file in options.items() if file is not None}
    try:
        sources = [replace(source, **given) for source in find(inputs)]
    except ReadError as error:
        stop(error, USAGE)
    table, failed = embed_sources(sources, model, refine=refine, posterior=posterior, workers=workers)
    if table is not None:
        tables.write(table, output)
        summarise(table)
        typer.echo(f"{len(table)} {'spectrum' if len(table) == 1 else 'spectra'} written to {output}")
    if failures is not None:
        _write_failures(failed, failures)
    for failure in failed:
        tell(f"failed: {failure.name}: {failure.reason}")
    if failed:
        written = "the others were written" if table is not None else f"{output} was not written"
        stop(f"{len(failed)} of {len(failed) + len(table or ())} spectra could not be embedded; {written}", FAILED)


def embed_sources(
    sources: "Sequence[Source]",
    model: str | None = None,
    *,
    refine: bool = True,
    posterior: str = Kind.GAUSSIAN,
    workers: int = 1,
) -> "tuple[LatentTable | None, list[Failure]]":
    """Read and embed spectra, with a progress bar on stderr where it takes long.

    Parameters
    ----------
    sources : sequence of Source
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
    size = 1 if posterior == Kind.EXACT else _CHUNK
    chunks = [sources[begin : begin + size] for begin in range(0, len(sources), size)]
    done: list[LatentTable] = []
    failed: list[Failure] = []
    told: set[str] = set()
    with ExitStack() as open_bars:
        advance, began = None, time.monotonic()
        n_done = 0
        for outcome in _outcomes(partial(_embed_chunk, model, refine, posterior), chunks, workers):
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


def _outcomes(embed_chunk: "partial[_Outcome]", chunks: "list[Sequence[Source]]", workers: int) -> Iterator[_Outcome]:
    """Outcomes of all chunks, in order, from this process or from several."""
    if workers == 1:
        yield from map(embed_chunk, chunks)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    # One thread each: the variables are read when a worker loads its libraries.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(chunks)), mp_context=spawn, initializer=_leave_interrupts_to_parent)
    try:
        yield from pool.map(embed_chunk, chunks)
    except BrokenProcessPool:
        stop("a worker process died, perhaps for want of memory; use fewer --workers", FAILED)
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_parent() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


@cache
def _loaded(model: str) -> "LatentModel":
    """Load a model once in each process."""
    from xlatent.infer.embed import load_model

    return load_model(model, threads=1)


def _embed_chunk(model: str, refine: bool, posterior: str, sources: "Sequence[Source]") -> _Outcome:
    """Read some spectra and embed those that could be read."""
    from xlatent.formats.ogip import read

    spectra: list[Spectrum] = []
    outcome = _Outcome([], [], [], len(sources))
    with warnings_to(outcome.warnings.append):
        for source in sources:
            try:
                found = read(source.pha, source.arf, source.rmf, source.background, source.name)
                spectra.extend(found if isinstance(found, list) else [found])
            except Exception as error:
                outcome.failures.append(Failure(source.name, str(source.pha), _reason(error)))
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
            outcome.failures.append(Failure(spectra[0].name, file, _reason(error)))


def _reason(error: Exception) -> str:
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


def _write_failures(failures: list[Failure], path: Path) -> None:
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
