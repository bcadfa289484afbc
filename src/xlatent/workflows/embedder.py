"""What a process that embeds does with a task: it reads the spectra, embeds them, and may write a part."""

from collections.abc import Iterator
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from xlatent.core.errors import ModelError
from xlatent.core.messages import reason
from xlatent.core.version import SOFTWARE
from xlatent.workflows.notices import Failure, Notice, Notices
from xlatent.workflows.parallel import batches
from xlatent.workflows.tasks import Settings, ShardSlice, Task, all_failed

if TYPE_CHECKING:
    import pyarrow as pa

    from xlatent.core.spectrum import Spectrum
    from xlatent.formats.inputs import Source
    from xlatent.formats.ogip_response import ResponseReader
    from xlatent.formats.store_shards import ShardReader
    from xlatent.infer.embed import LatentModel

# The warnings module is not made for threads, which a Dask worker may have, and a notebook.
_one_at_a_time = Lock()


class BatchResult(NamedTuple):
    """What comes of a task; `rows` may be none."""

    rows: "pa.Table"
    failures: list[Failure]
    notices: list[Notice]


class PartResult(NamedTuple):
    """What remains to be told of a task whose part has been written."""

    n_rows: int
    failures: list[Failure]
    notices: list[Notice]
    written: bool = True


class Embedder:
    """Reads and embeds the spectra of tasks; what it loads for one of them is there for the next.

    Pickled it is its settings alone, so that each process loads for itself. Threads may share one.

    Parameters
    ----------
    settings : Settings
        How to embed.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stores: dict[str, ShardReader] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Embedder, (self.settings,)

    def embed(self, task: Task) -> BatchResult:
        """Read the spectra of a task and embed those that could be read, in order.

        Raises
        ------
        ModelError
            If this process has another xlatent or model than the one that gave the task.
        """
        import pyarrow as pa

        from xlatent.formats.latent_tables import to_arrow

        failures: list[Failure] = []
        notices = Notices()
        with _one_at_a_time, notices.collect():
            if self.settings.software != SOFTWARE:
                raise ModelError(
                    f"a worker has {SOFTWARE}, and the command was given to {self.settings.software}; install the same"
                )
            rows: list[pa.Table] = []
            for spectra in self._groups(task, failures, notices):
                if spectra:
                    rows.extend(self._rows(spectra, failures))
            return BatchResult(pa.concat_tables(rows or [to_arrow(self._model.embed([]))]), failures, list(notices))

    def embed_part(self, folder: str, task: Task) -> PartResult:
        """Do a task and write its part.

        Raises
        ------
        ModelError
            As `embed`.
        WriteError
            If the part cannot be written.
        """
        from xlatent.formats.partitions import PartitionedTable

        rows, failures, notices = self.embed(task)
        PartitionedTable(folder).write(task.part, rows, failures)
        return PartResult(rows.num_rows, failures, notices)

    @cached_property
    def _responses(self) -> "ResponseReader":
        """Responses of files: those that several spectra have are read once."""
        from xlatent.formats.ogip_response import ResponseReader

        return ResponseReader()

    @cached_property
    def _model(self) -> "LatentModel":
        """The model, of which it is made sure that it is the one that is meant."""
        from xlatent.infer.embed import load_model

        model, sha256 = self.settings.model, self.settings.model_sha256
        loaded = load_model(model, threads=1)
        if loaded.info.fingerprint != sha256:
            raise ModelError(
                f"model {model} of a worker has sha256 {loaded.info.fingerprint[:12]}..., and the command was given "
                f"with {sha256[:12]}...; put the same model there"
            )
        return loaded

    def _groups(self, task: Task, failures: list[Failure], notices: Notices) -> "Iterator[list[Spectrum]]":
        """Spectra that could be read: those of files, whose responses are in memory too, a few at a time."""
        if not isinstance(task.of, ShardSlice):
            for sources in batches(task.of, task.together):
                found: list[Spectrum] = []
                for source in sources:
                    try:
                        with notices.collect(source.name, str(source.pha)):
                            found.extend(self._read(source))
                    except Exception as error:
                        failures.append(Failure(source.name, str(source.pha), reason(error)))
                yield found
            return
        try:
            stored = self._shards(task.of.store).read_kept(task.of.shard)
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

    def _read(self, source: "Source") -> "list[Spectrum]":
        # Of grouped spectra, a model with a likelihood wants the groups as they are; others want a curve without holes.
        curve = not (self.settings.refine and self._model.info.probabilistic)
        return source.read(responses=self._responses, spread=curve)

    def _shards(self, store: str) -> "ShardReader":
        """Reader of a store, which keeps responses and the shard read last: several tasks may be cut from that."""
        from xlatent.formats.store_shards import ShardReader

        if store not in self._stores:
            self._stores[store] = ShardReader(store)
        return self._stores[store]

    def _rows(self, spectra: "list[Spectrum]", failures: list[Failure]) -> "Iterator[pa.Table]":
        """Rows of some spectra together or, if one of them cannot be embedded, of each half alone."""
        from xlatent.formats.latent_tables import to_arrow

        try:
            yield to_arrow(self._model.embed(spectra, refine=self.settings.refine, posterior=self.settings.posterior))
        except Exception as error:
            if len(spectra) == 1:
                file = str(spectra[0].meta.get("file", ""))
                failures.append(Failure(spectra[0].name, file, reason(error)))
                return
            half = len(spectra) // 2
            for some in (spectra[:half], spectra[half:]):
                yield from self._rows(some, failures)
