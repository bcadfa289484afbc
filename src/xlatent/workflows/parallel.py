"""Work shared among processes: results in order, and no process that outlives its parent."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from xlatent.core.errors import ParameterError, WorkerError

Item = TypeVar("Item")
Result = TypeVar("Result")

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

# What a process of a pool does with each item; it has no other place where it could keep it.
_work: Callable[[Any], Any]


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut items into lists of some length; the last may be shorter.

    Examples
    --------
    >>> list(batches("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    waiting = iter(items)
    while batch := list(islice(waiting, size)):
        yield batch


def check_workers(workers: int) -> None:
    """Make sure that there is at least one process to do the work.

    Raises
    ------
    ParameterError
        If there is none.
    """
    if workers < 1:
        raise ParameterError(f"workers is {workers}, and the work needs at least one process")


def one_thread_each() -> None:
    """Keep linear algebra to one thread in each process: on matrices as small as these, two wait for each other.

    The variables are read when the libraries are loaded: by this process if it has not done so, and by those it starts.
    """
    os.environ.update(_ONE_THREAD)


@contextmanager
def _one_thread_in_children() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    one_thread_each()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Yield the results of some work on all items, in order; few are in memory at once.

    Parameters
    ----------
    work : callable
        Takes an item. Each process gets one copy of it, pickled, in which it may keep what it has loaded.
    items : iterable
        What to work on, each pickled too.
    workers : int
        Number of processes; with 1 all is done in this one.

    Raises
    ------
    WorkerError
        If a process dies.
    """
    if workers == 1:
        yield from map(work, items)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    before = set(multiprocessing.active_children())
    waiting: deque = deque()
    with _one_thread_in_children():
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_process, (work,))
        try:
            for item in items:
                waiting.append(pool.submit(_do, item))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise WorkerError(
                "a worker process died, perhaps for want of memory; use fewer workers (--workers)"
            ) from error
        except BaseException:
            # What they are at is not waited for: files are written whole or not at all.
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _start_process(work: Callable[[Any], Any]) -> None:
    """Keep the work of this process, leave interrupts to its parent, and end when that is killed."""
    import multiprocessing
    import signal
    from threading import Thread

    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=follow, daemon=True).start()


def _do(item: Any) -> Any:
    return _work(item)
