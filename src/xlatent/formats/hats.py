"""Latent tables as HATS catalogues: Parquet files cut along HEALPix pixels, which LSDB opens and cross-matches.

HATS is the Hierarchical Adaptive Tiling Scheme, https://www.ivoa.net/documents/Notes/HATS/; ``hats-import`` does the
cutting, in three passes over the rows (count, split, merge), with no more of them in memory than one pixel has.
"""

import io
import logging
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from astropy.utils.exceptions import AstropyWarning

from xlatent.core.errors import ReadError, WriteError, XlatentWarning
from xlatent.core.extras import requires_extra
from xlatent.core.latent_columns import META_KEYS
from xlatent.core.latents import LatentTable
from xlatent.core.messages import first_line
from xlatent.formats import described_folder, latent_tables, partitions

if TYPE_CHECKING:
    import pyarrow as pa
    from distributed import Client

MARGIN = 30.0
"""Arcseconds around each pixel whose rows are stored with it too: the widest cross-match that misses nothing."""
_ROWS = 100_000  # a pixel's file and a reader's bite: 100 MB in memory
_ORDER = 7  # finest HEALPix order of a pixel: 27 arcmin, more than one field of ACIS
_POSITION = ["ra", "dec"]
_ORIGIN = [f"xlatent.{key}" for key in META_KEYS]


def check(folder: str | Path) -> None:
    """Make sure, before any work, that a catalogue can be written.

    Parameters
    ----------
    folder : str or Path
        Of the catalogue to be.

    Raises
    ------
    XlatentError
        If hats-import is not installed.
    WriteError
        If it is a URL, there already, in a folder that is missing or read-only, or of a name that HATS does not take.
    """
    folder = Path(folder)
    with requires_extra("hats", "hats_import", "hats"):
        import hats_import  # noqa: F401
    if described_folder.is_url(folder):
        raise WriteError(f"{folder} is a URL, and a HATS catalogue is written to a folder; copy it there afterwards")
    if not re.fullmatch(r"[\w.-]+", folder.name, re.ASCII):
        raise WriteError(
            f"{folder}: the name of a HATS catalogue takes letters, digits, '.', '_' and '-'; choose another"
        )
    if folder.exists():
        raise WriteError(f"{folder} is there already; remove it or choose another name")
    if not folder.parent.is_dir() or not os.access(folder.parent, os.W_OK):
        raise WriteError(f"{folder}: there is no folder {folder.parent} that can be written to; make it first")


def write(
    source: LatentTable | str | Path | Iterable[str | Path],
    folder: str | Path,
    *,
    client: "Client | None" = None,
    progress: bool = False,
) -> Path:
    """Write latents as a HATS collection: a catalogue of detections and its margin, whole or not at all.

    Parameters
    ----------
    source : LatentTable, path, or iterable of paths
        A table, its file, an embedding in parts, or Parquet files that are parts of one table.
    folder : str or Path
        To be made; its last name is the catalogue's.
    client : distributed.Client, optional
        Dask cluster to do the work, whose workers see all files; this process if not given.
    progress : bool
        Whether hats-import shows its progress on stderr.

    Returns
    -------
    Path
        The folder. Units, UCDs and descriptions of columns are in the schema of each file, and with the origin of the
        latents in ``dataset/_common_metadata``, where HATS has them as a VOTable's header.

    Raises
    ------
    XlatentError
        If hats-import is not installed.
    ReadError
        If a file or part is missing or damaged, or the columns are not those of latents.
    WriteError
        If `check` does, no row has a position, or the disk is full.

    Warns
    -----
    XlatentWarning
        If rows are left out because they have no position.
    """
    folder = Path(folder)
    check(folder)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent)).absolute()
    try:
        files = _parquet_files(source, scratch)
        rows = _count_rows(files, folder)
        said = io.StringIO()
        try:
            with _dask_client(client) as workers, _capture_output(said):
                _import(files, rows, scratch / folder.name, workers, progress)
        except Exception as error:  # hats-import prints what went wrong, and its error only says so
            lines = [line.strip() for line in f"{error!r}\n{said.getvalue()}".splitlines() if line.strip()]
            raise WriteError(
                f"{folder} could not be written ({lines[-1]}); is the disk full, or a file of the table damaged?"
            ) from error
        (scratch / folder.name).rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


class RowCounts(NamedTuple):
    """Rows of a table that is to be cut, with its columns."""

    total: int
    fullest: int  # number in the fullest pixel of the finest order
    schema: "pa.Schema"


def _parquet_files(source: Any, scratch: Path) -> list[str]:
    """Parquet files that hold the rows; a table that is in none yet is written to the scratch folder."""
    if isinstance(source, str | Path):
        if partitions.is_embedding(source):
            source = _completed_files(partitions.PartitionedTable(source))
        else:
            source = [source] if Path(source).suffix == ".parquet" else latent_tables.read(source)
    if isinstance(source, LatentTable):
        source = [latent_tables.write(source, scratch / "table.parquet")]
    return [str(file) if described_folder.is_url(file) else str(Path(file).absolute()) for file in source]


def _completed_files(embedding: partitions.PartitionedTable) -> list[str]:
    """Files of the parts that have rows."""
    files = [part.file for part in embedding.info().parts]
    written = embedding.completed(files)
    if missing := len(files) - len(written):
        raise ReadError(
            f"{embedding.path} is unfinished: {missing} of its {len(files)} parts are missing; give the command that "
            "makes it again, which does those only"
        )
    return [f"{embedding.path}/{file}" for file in files if written[file].rows]


def _count_rows(files: list[str], folder: Path) -> RowCounts:
    """Count rows by position, and warn of those that have none."""
    from hats.io.file_io import read_parquet_dataset
    from hats.pixel_math.healpix_shim import order2npix, radec2pix

    if not files:
        raise ReadError(f"{folder} needs at least one spectrum, and there is none; embed some first")
    counts = np.zeros(order2npix(_ORDER), dtype=np.int64)
    try:
        _, dataset = read_parquet_dataset([*files])
        if absent := [name for name in ("z0", *_POSITION) if name not in dataset.schema.names]:
            raise ReadError(f"{files[0]}: expected latents with positions, found no column {absent[0]}")
        total = dataset.count_rows()
        for batch in dataset.to_batches(columns=_POSITION, filter=_has_position()):
            pixels = radec2pix(_ORDER, *(batch.column(name).to_numpy() for name in _POSITION))
            counts += np.bincount(pixels, minlength=len(counts))
    except (OSError, ValueError) as error:  # Arrow's errors are of these kinds
        raise ReadError(
            f"{folder}: the Parquet files it is made of cannot be read ({first_line(error)}); make them again"
        ) from error
    if not counts.any():
        raise WriteError(
            f"{folder}: none of the {total} spectra has a position (ra, dec), by which HATS stores them; "
            "write another kind of table"
        )
    if missing := total - counts.sum():
        warnings.warn(
            f"{folder} leaves out {missing} of {total} spectra: they have no position (ra, dec), by which HATS "
            "stores them",
            XlatentWarning,
            stacklevel=3,
        )
    # What is told of the table is kept, what is told of one of its parts is not.
    origin = {key: value for key, value in (dataset.schema.metadata or {}).items() if key.decode() in _ORIGIN}
    return RowCounts(total, int(counts.max()), dataset.schema.with_metadata(origin))


def _has_position() -> Any:
    """Arrow's expression for rows that have a position."""
    import pyarrow.compute as pc

    ra, dec = (pc.field(name) for name in _POSITION)
    return pc.is_finite(ra) & (dec >= -90.0) & (dec <= 90.0)


class _PlacedRows:
    """Reads for hats-import: rows of the files in a list, some at a time, those without position left out."""

    def read(self, input_file: Any, read_columns: Any = None) -> Iterator[Any]:
        from hats_import.catalog.file_readers import IndexedParquetReader

        reader = IndexedParquetReader(_ROWS, batch_readahead=1, fragment_readahead=1, use_threads=False)
        for table in reader.read(input_file, read_columns=read_columns):
            yield table.filter(_has_position())


def _write_file_lists(files: list[str], total: int, scratch: Path) -> list[Path]:
    """Write text files with the names of some Parquet files each, enough to be worth a task."""
    size = max(1, len(files) * _ROWS // total)
    lists = []
    for start in range(0, len(files), size):
        lists.append(scratch / f"{start}.txt")
        lists[-1].write_text("\n".join(files[start : start + size]))
    return lists


def _import(files: list[str], rows: RowCounts, catalogue: Path, client: "Client", progress: bool) -> None:
    """Have hats-import make the collection, and describe its columns."""
    import pyarrow.parquet as pq
    from hats.catalog import TableProperties
    from hats_import.collection import CollectionArguments
    from hats_import.pipeline import pipeline_with_client

    scratch = catalogue.parent
    pq.write_metadata(rows.schema, scratch / "schema.parquet")
    collection = CollectionArguments(
        output_path=scratch,
        output_artifact_name=catalogue.name,
        tmp_dir=scratch / "work",
        progress_bar=progress,
        simple_progress_bar=True,
    )
    collection.catalog(
        catalog_type="source",  # in HATS's sense: detections
        input_file_list=_write_file_lists(files, rows.total, scratch),
        file_reader=_PlacedRows(),
        use_schema_file=scratch / "schema.parquet",
        highest_healpix_order=_ORDER,
        pixel_threshold=max(_ROWS, rows.fullest),
    )
    margin = catalogue / f"{catalogue.name}_margin"
    collection.add_margin(output_artifact_name=margin.name, margin_threshold=MARGIN, is_default=True)
    pipeline_with_client(collection, client)

    # The margin names its catalogue by the path it had here; in a collection they stand side by side.
    TableProperties.read_from_dir(margin).copy_and_update(primary_catalog=catalogue.name).to_properties_file(margin)
    for folder in (catalogue / catalogue.name, margin):
        _describe(folder)


def _describe(folder: Path) -> None:
    """Put units, UCDs and descriptions where HATS keeps them: in a VOTable header for the whole catalogue."""
    from hats.io.parquet_metadata import write_voparquet_in_common_metadata
    from hats.io.paths import get_common_metadata_pointer
    from pyarrow.parquet import read_schema

    schema = read_schema(get_common_metadata_pointer(folder))
    known: dict[str, dict[str, str]] = {"unit": {}, "ucd": {}, "description": {}}
    for field in schema:
        for key, value in (field.metadata or {}).items():
            if key.decode() in known:
                known[key.decode()][field.name] = value.decode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)  # the VOUnit standard deprecates erg
        write_voparquet_in_common_metadata(
            folder, field_units=known["unit"], field_ucds=known["ucd"], field_descriptions=known["description"]
        )


@contextmanager
def _dask_client(client: "Client | None") -> "Iterator[Client]":
    """Lend the cluster given, or one that does a task at a time in this process."""
    from distributed import Client

    if client is not None:
        yield client
        return
    here = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}  # seen by nobody else
    with Client(processes=False, n_workers=1, threads_per_worker=1, **here) as own:
        yield own


@contextmanager
def _capture_output(said: io.StringIO) -> Iterator[None]:
    """Keep from the terminal what hats-import and Dask print, log and warn of; what they print is kept."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(said), warnings.catch_warnings():
            # It has them computed, of a margin it has just made.
            warnings.filterwarnings("ignore", "Computing partitions from catalog parquet files", UserWarning)
            yield
    finally:
        logging.disable(before)
