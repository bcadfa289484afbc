"""What is embedded in one go, wherever that is: some rows of a store, or some files; and how all is cut into it."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xlatent.core.batches import DRAWN, TOGETHER
from xlatent.core.version import SOFTWARE
from xlatent.workflows.notices import Failure

if TYPE_CHECKING:
    from xlatent.formats.inputs import Source
    from xlatent.formats.store_shards import ShardInfo

_FEW, _MANY = 32, 64  # the same of files, whose responses are in memory too
_FILES_IN_PART = 1024
_DRAWN_IN_PART = 8 * DRAWN  # spectra of a part with draws from the posterior


class ShardSlice(NamedTuple):
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

    of: "ShardSlice | tuple[Source, ...]"
    together: int = 1
    part: str = ""

    @property
    def size(self) -> int:
        """Number of spectra, or of files."""
        return self.of.stop - self.of.begin if isinstance(self.of, ShardSlice) else len(self.of)


def check_settings(model: str, refine: bool, posterior: str) -> Settings:
    """Make sure that there is such a model, whole, and that it can do what is asked, and say how to embed.

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


def shard_slices(store: str) -> list[ShardSlice]:
    """List the shards of a store, each whole.

    Raises
    ------
    ReadError
        If there is no store, or its description is damaged.
    """
    from xlatent.formats.store import open_store

    shards = open_store(store).info.shards
    before = accumulate((shard.rows for shard in shards), initial=0)
    return [ShardSlice(store, shard, first, 0, shard.rows) for shard, first in zip(shards, before, strict=False)]


def tasks_for_table(found: "Sequence[Source | ShardSlice]", exact: bool, workers: int) -> list[Task]:
    """Cut what was found so that all workers have something to do."""
    files = [one for one in found if not isinstance(one, ShardSlice)]
    rows = sum(one.stop - one.begin for one in found if isinstance(one, ShardSlice))
    groups = 1 if workers == 1 else max(1, rows // (8 * workers * TOGETHER))
    longest = DRAWN if exact else rows if workers == 1 else groups * TOGETHER
    together = min(max(len(files) // 16, _FEW), _MANY)
    return list(_cut(found, max(longest, 1), 1 if exact else together, together))


def tasks_for_parts(found: "Sequence[Source | ShardSlice]", exact: bool) -> list[Task]:
    """Cut what was found by shards and name the parts, in a way that depends on nothing else."""
    found = list(dict.fromkeys(found))  # a part is written once
    files = [one for one in found if not isinstance(one, ShardSlice)]
    shards = [one for one in found if isinstance(one, ShardSlice)]
    together = min(max(len(files) // 16, _FEW), _MANY)
    longest = _DRAWN_IN_PART if exact else max((one.stop for one in shards), default=1)
    stores = list(dict.fromkeys(one.store for one in shards))
    stems = _prefixes(stores) if len(stores) + bool(files) > 1 else dict.fromkeys(stores, "")
    named, n_files = [], 0
    for task in _cut(found, longest, _DRAWN_IN_PART if exact else _FILES_IN_PART, together):
        if isinstance(task.of, ShardSlice):
            cut = f"-{task.of.begin:05d}" if task.size < task.of.shard.rows else ""
            name = f"{stems[task.of.store]}{Path(task.of.shard.file).stem}{cut}"
        else:
            name, n_files = f"files-{n_files:05d}", n_files + 1
        named.append(task._replace(part=f"{name}.parquet"))
    return named


def _cut(found: "Sequence[Source | ShardSlice]", longest: int, files: int, together: int) -> Iterator[Task]:
    """Tasks of at most so many rows or files, in order."""
    waiting: list[Source] = []
    for one in found:
        if isinstance(one, ShardSlice):
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


def all_failed(task: Task, reason: str) -> list[Failure]:
    """Tell of each spectrum of a task that it failed, for one reason."""
    if isinstance(task.of, ShardSlice):
        numbers = range(task.of.first + task.of.begin, task.of.first + task.of.stop)
        return [Failure(f"row {number}", task.of.store, reason) for number in numbers]
    return [Failure(source.name, str(source.pha), reason) for source in task.of]
