"""Tasks of ``xlatent embed`` on a Dask cluster: its workers write the parts, and any of them may die."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from xlatent.core.errors import ModelError, ParameterError, WorkerError, WriteError
from xlatent.core.messages import reason
from xlatent.workflows.failures import Failure
from xlatent.workflows.tasks import Done, Task, all_failed

if TYPE_CHECKING:
    from xlatent.formats.partitions import Parts

_PATIENCE = 120.0  # seconds to wait for a scheduler that is gone
_TIMEOUT = 10.0  # seconds for one attempt to reach it
_DIED = "the workers that took it died, perhaps for want of memory"
# An interrupt can meet a call that has not begun, of which tornado then tells with a traceback.
_ITS_LOGGERS = ("distributed", "tornado", "asyncio")
_SAME = "install the same xlatent, and what it needs, for this command, the scheduler and the workers"


def on_cluster(
    address: str,
    work: Callable[[Task], Done],
    tasks: Sequence[Task],
    parts: "Parts",
    on_status: Callable[[str], None],
) -> Iterator[tuple[Task, Done]]:
    """Have the workers of a scheduler do all tasks, in any order.

    A task whose worker dies is given to another one; if it kills several, it has failed and its part is not written.
    If the scheduler is gone, it is waited for, and then told of the parts that are still missing.

    Parameters
    ----------
    address : str
        Of the scheduler.
    work : callable
        Does a task and writes its part, as `tasks.embed_part`.
    tasks : sequence of Task
    parts : Parts
        Where they are written.
    on_status : callable
        Takes sentences on how the cluster is.

    Yields
    ------
    Each task with what is to be told of it.

    Raises
    ------
    ParameterError
        If distributed is not installed, or no scheduler answers.
    WorkerError
        If the scheduler is lost for long, or its workers cannot run the tasks.
    ModelError, WriteError
        As the work raises them.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise ParameterError(
            'distributed is not installed, and --scheduler needs it: pip install "xlatent[cluster]"'
        ) from error
    for name in logging.root.manager.loggerDict:
        if name.partition(".")[0] in _ITS_LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)  # of what goes wrong we speak ourselves
    missing = {task.part: task for task in tasks}
    suspects: list[str] = []  # parts at which workers died; another one may have been to blame
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
                for file, there in parts.written(list(missing)).items():
                    if there.rows:
                        failures = [Failure(*failure) for failure in there.failures]
                        yield missing.pop(file), Done(there.rows, failures, [])
            first = False
            for file, done in _results(client, work, [missing[file] for file in missing if file not in suspects]):
                if done is None:
                    suspects.append(file)
                else:
                    yield missing.pop(file), done
            while missing and set(missing) <= set(suspects):
                file, task = next(iter(missing.items()))
                for _, done in _results(client, work, [task]):
                    yield missing.pop(file), done or _not_done(task, _DIED)
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


def _results(client: Any, work: Callable[[Task], Done], tasks: Sequence[Task]) -> Iterator[tuple[str, Done | None]]:
    """Results by part as they come; None where workers died.

    Raises
    ------
    OSError
        If the scheduler is gone.
    """
    from distributed import KilledWorker, as_completed

    run = uuid4().hex[:8]
    futures = {client.submit(work, task, key=f"embed-{task.part}-{run}", pure=False): task for task in tasks}
    try:
        for future in as_completed(list(futures)):
            task = futures[future]
            if future.cancelled():
                raise ConnectionError("the scheduler is gone")
            error = future.exception()
            if error is None:
                yield task.part, future.result()
            elif isinstance(error, KilledWorker):
                yield task.part, None
            elif isinstance(error, ModelError | WriteError):
                raise error
            elif isinstance(error, ImportError) or "deserializ" in str(error):
                raise WorkerError(f"the cluster cannot run the tasks of xlatent ({_first_line(error)}); {_SAME}")
            else:
                yield task.part, _not_done(task, reason(error))
    finally:
        client.cancel([future for future in futures if not future.done()])


def _not_done(task: Task, reason: str) -> Done:
    return Done(0, all_failed(task, f"{task.part} is missing: {reason}; give the command again"), [], written=False)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
