"""Tasks of ``xlatent embed`` on a Dask cluster: its workers write the parts, and any of them may die."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any
from uuid import uuid4

from xlatent.core.errors import ModelError, ParameterError, WorkerError, WriteError
from xlatent.core.extras import requires_extra
from xlatent.core.messages import reason
from xlatent.workflows.embedder import Embedder, PartResult
from xlatent.workflows.tasks import Task, all_failed

_PATIENCE = 120.0  # seconds to wait for a scheduler that is gone
_TIMEOUT = 10.0  # seconds for one attempt to reach it
_DIED = "the workers that took it died, perhaps for want of memory"
# An interrupt can meet a call that has not begun, of which tornado then tells with a traceback.
_ITS_LOGGERS = ("distributed", "tornado", "asyncio")
_SAME = "install the same xlatent, and what it needs, for this command, the scheduler and the workers"


def embed_on_cluster(
    address: str,
    embedder: Embedder,
    folder: str,
    tasks: Sequence[Task],
    completed: Callable[[list[str]], dict[str, PartResult]],
    on_status: Callable[[str], None],
) -> Iterator[tuple[Task, PartResult]]:
    """Have the workers of a scheduler do all tasks, in any order, and yield each with what came of it.

    A task whose worker dies is given to another one; if it kills several, it has failed and its part is not written.
    If the scheduler is gone, it is waited for, and then told of the parts that are still missing.

    Parameters
    ----------
    address : str
        Of the scheduler.
    embedder : Embedder
        Does a task and writes its part.
    folder : str
        Where the parts are written: an absolute path that all workers see, or a URL.
    tasks : sequence of Task
        None of whose parts is there yet.
    completed : callable
        Takes names of parts, and tells of those that are there what they hold.
    on_status : callable
        Takes sentences on how the cluster is.

    Raises
    ------
    ParameterError
        If no scheduler answers.
    XlatentError
        If distributed is not installed.
    WorkerError
        If the scheduler is lost for long, or its workers cannot run the tasks.
    ModelError, WriteError
        As `Embedder.embed_part` raises them.
    """
    with requires_extra("cluster", "distributed"):
        from distributed import Client
    for name in logging.root.manager.loggerDict:
        if name.partition(".")[0] in _ITS_LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)  # of what goes wrong we speak ourselves
    missing = {task.part: task for task in tasks}
    suspects: set[str] = set()  # parts at which workers died; another one may have been to blame
    lost: float | None = None  # since when there is no scheduler, if there was one
    first = True
    while missing:
        try:
            client = Client(address, timeout=_TIMEOUT)
        except (OSError, ValueError) as error:
            if first:
                raise ParameterError(
                    f"no Dask scheduler answers at {address} ({_first_line(error)}); check the address"
                ) from None
            if time.monotonic() - (lost or 0.0) > _PATIENCE:
                raise WorkerError(
                    f"the scheduler at {address} was lost and is not back after {_PATIENCE:.0f} s; give the command "
                    "again when it is, and it goes on where it was"
                ) from None
            time.sleep(1.0)
            continue
        try:
            if first:
                _introduce(client, on_status)
            else:
                # What workers finished after the scheduler was gone.
                for part, done in completed(list(missing)).items():
                    yield missing.pop(part), done
            first = False
            trusted = [task for part, task in missing.items() if part not in suspects]
            for task, result in _results(client, embedder, folder, trusted):
                if result is None:
                    suspects.add(task.part)
                else:
                    del missing[task.part]
                    yield task, result
            # One at a time, so that a task dies of itself only.
            for task in [task for part, task in missing.items() if part in suspects]:
                for _, result in _results(client, embedder, folder, [task]):
                    del missing[task.part]
                    yield task, result or _not_done(task, _DIED)
        except (OSError, CancelledError):
            lost = time.monotonic()
            on_status(f"the scheduler at {address} is gone; waiting for it")
        finally:
            client.close(timeout=2)


def _introduce(client: Any, on_status: Callable[[str], None]) -> None:
    info = client.scheduler_info()
    if "dashboard" in info["services"]:
        on_status(f"dashboard: {client.dashboard_link}")
    if not info["workers"]:
        on_status("the scheduler has no workers yet; waiting for some")


def _results(
    client: Any, embedder: Embedder, folder: str, tasks: Sequence[Task]
) -> Iterator[tuple[Task, PartResult | None]]:
    """Results as they come; None where workers died.

    Raises
    ------
    OSError
        If the scheduler is gone.
    """
    from distributed import KilledWorker, as_completed

    run = uuid4().hex[:8]
    futures = {
        client.submit(_on_worker, embedder, folder, task, key=f"embed-{task.part}-{run}", pure=False): task
        for task in tasks
    }
    try:
        for future in as_completed(list(futures)):
            task = futures[future]
            if future.cancelled():
                raise ConnectionError("the scheduler is gone")
            error = future.exception()
            if error is None:
                yield task, future.result()
            elif isinstance(error, KilledWorker):
                yield task, None
            elif isinstance(error, ModelError | WriteError):
                raise error
            elif isinstance(error, ImportError) or "deserializ" in str(error):
                raise WorkerError(f"the cluster cannot run the tasks of xlatent ({_first_line(error)}); {_SAME}")
            else:
                yield task, _not_done(task, reason(error))
    finally:
        client.cancel([future for future in futures if not future.done()])


def _on_worker(embedder: Embedder, folder: str, task: Task) -> PartResult:
    """Do a task with the embedder that this worker has already, whose model is loaded, or with a new one."""
    from distributed import get_worker

    # One is kept, as an attribute of the worker: it lives as long as that does.
    state = vars(get_worker())
    kept: Embedder = state.setdefault("_xlatent_embedder", embedder)
    if kept.settings != embedder.settings:
        state["_xlatent_embedder"] = kept = embedder
    return kept.embed_part(folder, task)


def _not_done(task: Task, reason: str) -> PartResult:
    return PartResult(0, all_failed(task, f"{task.part} is missing: {reason}; give the command again"), [], False)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
