"""What a worker of ``xlatent embed`` does in one go, wherever it runs: some rows of a store, or some files."""

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from xlatent.core.errors import ModelError
from xlatent.core.messages import reason, redirect_warnings
from xlatent.core.version import SOFTWARE
from xlatent.workflows.failures import Failure
from xlatent.workflows.parallel import batches

if TYPE_CHECKING:
    import pyarrow as pa

    from xlatent.core.spectrum import Spectrum
    from xlatent.formats.inputs import Source
    from xlatent.formats.ogip_response import ResponseReader
    from xlatent.formats.store import ShardInfo, Store
    from xlatent.formats.store_rows import Rows as StoredRows
    from xlatent.infer.embed import LatentModel

# Tasks of a store hold multiples of what is embedded together (the same in xlatent.infer.embed, which takes long to
# load), so that neither a number of workers nor a kind of output changes a last digit.
TOGETHER = 512
_FEW, _MANY = 32, 64  # the same of files, whose responses are in memory too
_FILES_IN_PART = 1024
_DRAWN, _DRAWN_IN_PART = 8, 64  # spectra of a task with draws from the posterior, a second each


class Rows(NamedTuple):
    """Neighbouring spectra of one shard of a store."""

    store: str
    shard: "ShardInfo"
    first: int  # row of the store with which the shard begins
    begin: int
    stop: int


class Settings(NamedTuple):
    """How to embed; what a worker elsewhere must have too."""

    model: str
    model_sha256: str
    software: str
    refine: bool
    posterior: str


class Task(NamedTuple):
    """Some rows of a store, or files ``together`` at a time; ``part`` is the file in which they end."""

    of: "Rows | tuple[Source, ...]"
    together: int = 1
    part: str = ""

    @property
    def size(self) -> int:
        """Number of spectra, or of files."""
        return self.of.stop - self.of.begin if isinstance(self.of, Rows) else len(self.of)


class Embedded(NamedTuple):
    """Result of a task; `rows` may be none."""

    rows: "pa.Table"
    failures: list[Failure]
    warnings: list[str]


class Done(NamedTuple):
    """What remains to be told of a task whose part has been written."""

    n_rows: int
    failures: list[Failure]
    warnings: list[str]
    written: bool = True


def settings_of(model: str, refine: bool, posterior: str) -> Settings:
    """Make sure that there is such a model, whole, and that it can do what is asked.

    Raises
    ------
    ModelError
        If there is no such model, or it is damaged.
    ParameterError
        If the model has no such posterior.
    """
    from xlatent.core.bundle import INFO, locate, read_info

    name = str(Path(model).resolve()) if (Path(model) / INFO).is_file() else model
    info = read_info(locate(model))
    info.check_posterior(str(posterior), refine)
    return Settings(name, info.fingerprint, SOFTWARE, refine, str(posterior))


def rows_of(store: str) -> list[Rows]:
    """Shards of a store.

    Raises
    ------
    ReadError
        If there is no store, or its description is damaged.
    """
    from xlatent.formats.store import open_store

    shards = open_store(store).info.shards
    before = accumulate((shard.rows for shard in shards), initial=0)
    return [Rows(store, shard, first, 0, shard.rows) for shard, first in zip(shards, before, strict=False)]


def tasks_for_table(found: "Sequence[Source | Rows]", exact: bool, workers: int) -> list[Task]:
    """Cut what was found so that all workers have something to do."""
    files = [one for one in found if not isinstance(one, Rows)]
    rows = sum(one.stop - one.begin for one in found if isinstance(one, Rows))
    groups = 1 if workers == 1 else max(1, rows // (8 * workers * TOGETHER))
    longest = _DRAWN if exact else rows if workers == 1 else groups * TOGETHER
    together = min(max(len(files) // 16, _FEW), _MANY)
    return list(_cut(found, max(longest, 1), 1 if exact else together, together))


def tasks_for_parts(found: "Sequence[Source | Rows]", exact: bool) -> list[Task]:
    """Cut what was found by shards and name the parts, in a way that depends on nothing else."""
    found = list(dict.fromkeys(found))  # a part is written once
    files = [one for one in found if not isinstance(one, Rows)]
    shards = [one for one in found if isinstance(one, Rows)]
    together = min(max(len(files) // 16, _FEW), _MANY)
    longest = _DRAWN_IN_PART if exact else max((one.stop for one in shards), default=1)
    stores = list(dict.fromkeys(one.store for one in shards))
    stems = _prefixes(stores) if len(stores) + bool(files) > 1 else dict.fromkeys(stores, "")
    named, n_files = [], 0
    for task in _cut(found, longest, _DRAWN_IN_PART if exact else _FILES_IN_PART, together):
        if isinstance(task.of, Rows):
            cut = f"-{task.of.begin:05d}" if task.size < task.of.shard.rows else ""
            name = f"{stems[task.of.store]}{Path(task.of.shard.file).stem}{cut}"
        else:
            name, n_files = f"files-{n_files:05d}", n_files + 1
        named.append(task._replace(part=f"{name}.parquet"))
    return named


def _cut(found: "Sequence[Source | Rows]", longest: int, files: int, together: int) -> Iterator[Task]:
    """Tasks of at most so many rows or files, in order."""
    waiting: list[Source] = []
    for one in found:
        if isinstance(one, Rows):
            if waiting:
                yield Task(tuple(waiting), together)
                waiting = []
            for begin in range(one.begin, one.stop, longest):
                yield Task(one._replace(begin=begin, stop=min(begin + longest, one.stop)))
        else:
            waiting.append(one)
            if len(waiting) == files:
                yield Task(tuple(waiting), together)
                waiting = []
    if waiting:
        yield Task(tuple(waiting), together)


def _prefixes(stores: Sequence[str]) -> dict[str, str]:
    """Names of stores, told apart, as file names may begin with them."""
    import re

    names = [re.sub(r"[^\w-]", "_", Path(store).name) for store in stores]
    if len(set(names)) < len(names):
        names = [f"{number}-{name}" for number, name in enumerate(names)]
    return {store: f"{name}-" for store, name in zip(stores, names, strict=True)}


# The caches below and the warnings module are not made for threads, which a Dask worker may have.
_one_at_a_time = Lock()


def embed_task(settings: Settings, task: Task) -> Embedded:
    """Read the spectra of a task and embed those that could be read, in order.

    Raises
    ------
    ModelError
        If this process has another xlatent or model than the one that gave the task.
    """
    import pyarrow as pa

    from xlatent.formats.latent_tables import to_arrow

    failures: list[Failure] = []
    told: list[str] = []
    with _one_at_a_time, redirect_warnings(told.append):
        if settings.software != SOFTWARE:
            raise ModelError(
                f"a worker has {SOFTWARE}, and the command was given to {settings.software}; install the same"
            )
        model = _loaded(settings.model, settings.model_sha256)
        rows: list[pa.Table] = []
        for spectra in _groups(settings, task, failures):
            if spectra:
                rows.extend(_embedded(model, settings, spectra, failures))
        return Embedded(pa.concat_tables(rows or [to_arrow(model.embed([]))]), failures, told)


def embed_part(settings: Settings, folder: str, task: Task) -> Done:
    """Do a task and write its part.

    Raises
    ------
    ModelError
        As `embed_task`.
    WriteError
        If the part cannot be written.
    """
    from xlatent.formats.partitions import Parts

    rows, failures, told = embed_task(settings, task)
    Parts(folder).write(task.part, rows, failures)
    return Done(rows.num_rows, failures, told)


def all_failed(task: Task, reason: str) -> list[Failure]:
    """A failure for each spectrum of a task."""
    if isinstance(task.of, Rows):
        numbers = range(task.of.first + task.of.begin, task.of.first + task.of.stop)
        return [Failure(f"row {number}", task.of.store, reason) for number in numbers]
    return [Failure(source.name, str(source.pha), reason) for source in task.of]


def _groups(settings: Settings, task: Task, failures: list[Failure]) -> "Iterator[list[Spectrum]]":
    """Spectra that could be read: those of files, whose responses are in memory too, a few at a time."""
    if not isinstance(task.of, Rows):
        for sources in batches(task.of, task.together):
            found: list[Spectrum] = []
            for source in sources:
                try:
                    found.extend(_read(settings, source))
                except Exception as error:
                    failures.append(Failure(source.name, str(source.pha), reason(error)))
            yield found
        return
    try:
        stored = _shard(task.of.store, task.of.shard)
    except Exception as error:
        failures.extend(all_failed(task, reason(error)))
        return
    spectra: list[Spectrum] = []
    for row in range(task.of.begin, task.of.stop):
        try:
            spectra.append(stored[row])
        except Exception as error:
            failures.append(Failure(f"row {task.of.first + row}", task.of.store, reason(error)))
    yield spectra


def _read(settings: Settings, source: "Source") -> "list[Spectrum]":
    # Of grouped spectra, a model with a likelihood wants the groups as they are; others want a curve without holes.
    model = _loaded(settings.model, settings.model_sha256)
    curve = not (settings.refine and model.info.probabilistic)
    return source.read(responses=_responses(), spread=curve)


def _embedded(
    model: "LatentModel", settings: Settings, spectra: "list[Spectrum]", failures: list[Failure]
) -> "Iterator[pa.Table]":
    """Rows of some spectra together or, if one of them cannot be embedded, of each half alone."""
    from xlatent.formats.latent_tables import to_arrow

    try:
        yield to_arrow(model.embed(spectra, refine=settings.refine, posterior=settings.posterior))
    except Exception as error:
        if len(spectra) == 1:
            file = str(spectra[0].meta.get("file", ""))
            failures.append(Failure(spectra[0].name, file, reason(error)))
            return
        half = len(spectra) // 2
        for some in (spectra[:half], spectra[half:]):
            yield from _embedded(model, settings, some, failures)


@lru_cache(maxsize=2)
def _loaded(model: str, sha256: str) -> "LatentModel":
    """Load a model once in each process, and make sure that it is the one that is meant."""
    from xlatent.infer.embed import load_model

    loaded = load_model(model, threads=1)
    if loaded.info.fingerprint != sha256:
        raise ModelError(
            f"model {model} of a worker has sha256 {loaded.info.fingerprint[:12]}..., and the command was given with "
            f"{sha256[:12]}...; put the same model there"
        )
    return loaded


@cache
def _place(store: str) -> "Store":
    """A store of which the shards are known: what it keeps is its responses."""
    from xlatent.formats.store import Store, StoreInfo

    return Store(store, StoreInfo())


@lru_cache(maxsize=1)
def _shard(store: str, info: "ShardInfo") -> "StoredRows":
    """The shard that was read last: several tasks may be cut from it."""
    from xlatent.formats.store import Shard

    return Shard(_place(store), info).rows()


@cache
def _responses() -> "ResponseReader":
    """Responses of files that this process reads: those that several spectra have are read once."""
    from xlatent.formats.ogip_response import ResponseReader

    return ResponseReader()
