"""Tasks of ``xlatent embed`` on a Dask cluster: its workers write the parts, and any of them may die."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from xlatent.cli.ui import FAILED, USAGE, abort, echo_status
from xlatent.core.errors import ModelError, WriteError
from xlatent.core.messages import reason
from xlatent.workflows.tasks import Done, Failure, Task, all_failed

if TYPE_CHECKING:
    from xlatent.formats.partitions import Parts

_PATIENCE = 120.0  # seconds to wait for a scheduler that is gone
_TIMEOUT = 10.0  # seconds for one attempt to reach it
_DIED = "the workers that took it died, perhaps for want of memory"
# An interrupt can meet a call that has not begun, of which tornado then tells with a traceback.
_ITS_LOGGERS = ("distributed", "tornado", "asyncio")
_SAME = "install the same xlatent, and what it needs, for this command, the scheduler and the workers"


def on_cluster(
    address: str, work: Callable[[Task], Done], tasks: Sequence[Task], parts: "Parts"
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

    Yields
    ------
    Each task with what is to be told of it.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError:
        abort('distributed is not installed, and --scheduler needs it: pip install "xlatent[cluster]"', USAGE)
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
                abort(f"no Dask scheduler answers at {address} ({_first_line(error)}); check the address", USAGE)
            if time.monotonic() - (lost or 0.0) > _PATIENCE:
                abort(
                    f"the scheduler at {address} was lost and is not back after {_PATIENCE:.0f} s; give the command "
                    "again when it is, and it goes on where it was",
                    FAILED,
                )
            time.sleep(1.0)
            continue
        try:
            if first:
                _introduce(client)
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
            echo_status(f"the scheduler at {address} is gone; waiting for it")
        finally:
            client.close(timeout=2)


def _introduce(client: Any) -> None:
    info = client.scheduler_info()
    if "dashboard" in info["services"]:
        echo_status(f"dashboard: {client.dashboard_link}")
    if not info["workers"]:
        echo_status("the scheduler has no workers yet; waiting for some")


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
                abort(f"the cluster cannot run the tasks of xlatent ({_first_line(error)}); {_SAME}", FAILED)
            else:
                yield task.part, _not_done(task, reason(error))
    finally:
        client.cancel([future for future in futures if not future.done()])


def _not_done(task: Task, reason: str) -> Done:
    return Done(0, all_failed(task, f"{task.part} is missing: {reason}; give the command again"), [], written=False)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
