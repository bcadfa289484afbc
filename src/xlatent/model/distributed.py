"""Several processes that train one model, as torchrun starts them: what they share, and what is said when one ends."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from xlatent.core.errors import ModelError, ParameterError, XlatentError
from xlatent.model.checkpoint import STATE, read_checkpoint

Found = TypeVar("Found")


class _LostError(Exception):
    """Another process ended, or all are asked to."""


def _own_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class DistributedContext:
    """Process ``rank`` of ``number``, which train together; by default one that is alone.

    The first, of rank 0, keeps time, writes checkpoints and log, and speaks.
    """

    rank: int = 0
    number: int = 1
    device: torch.device = field(default_factory=_own_device)

    @property
    def restarted(self) -> bool:
        """Whether torchrun has started all anew, because one was lost and it was given --max-restarts."""
        return _attempt() > 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def all_reduce(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, the same to the last bit in each."""
        if self.number == 1:
            return
        whole = torch.cat([tensor.flatten() for tensor in tensors])  # one message for all
        with _lost():
            dist.all_reduce(whole)
        for tensor, part in zip(tensors, whole.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def broadcast(self, find: Callable[[], Found]) -> Found:
        """Hand to every process what ``find``, called in the first alone, returns there."""
        if self.number == 1:
            return find()
        found: list[Any] = [find() if self.first else None]
        with _lost():
            dist.broadcast_object_list(found, src=0)
        return found[0]


@contextmanager
def distributed_context(output: Path) -> Iterator[DistributedContext]:
    """Join the other processes that torchrun has started, or be alone where it has not.

    What goes wrong in all of them, or in one and thereby in the others, is said once, by the first to notice.

    Parameters
    ----------
    output : Path
        Folder of the training run, whose checkpoint is spoken of when a process is lost.

    Raises
    ------
    ParameterError
        If there are more processes than GPUs on this machine, and GPUs are used.
    ModelError
        If another process ended, or torchrun was told to stop.
    """
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys():
        yield DistributedContext()
        return
    device, local = _own_device(), int(os.environ["LOCAL_RANK"])
    store, rank, number = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(f"attempt {_attempt()}", store)  # the addresses of those who are lost are in it still
    before = signal.signal(signal.SIGTERM, _asked_to_stop)
    try:
        if device.type == "cuda":
            if local >= torch.cuda.device_count():
                raise ParameterError(
                    f"this machine has {torch.cuda.device_count()} GPUs; give torchrun --nproc-per-node of that or less"
                )
            device = torch.device("cuda", local)
            torch.cuda.set_device(device)
        with _lost():
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo", store=store, rank=rank, world_size=number
            )
        yield DistributedContext(rank, number, device)
        dist.destroy_process_group()
    except (XlatentError, _LostError) as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it to those that remain; this one is leaving
        if _is_told(store):
            raise SystemExit(1) from None
        if isinstance(error, _LostError):
            raise ModelError(
                f"another process of this training ended, or torchrun was stopped; {_left(output)}"
            ) from None
        raise
    finally:
        if signal.getsignal(signal.SIGTERM) is _asked_to_stop:
            signal.signal(signal.SIGTERM, before)


def _attempt() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def _lost() -> Iterator[None]:
    """What torch says of a connection that broke, as `_LostError`."""
    try:
        yield
    except RuntimeError as error:
        raise _LostError from error


def _asked_to_stop(*_: object) -> None:
    raise _LostError


def _is_told(store: dist.Store) -> bool:
    """Whether another process has said already why the training ends."""
    try:
        return store.add("told", 1) > 1
    except RuntimeError:  # the store ended with the machine that kept it
        return False


def _left(output: Path) -> str:
    if not (output / STATE).is_file():
        return f"no checkpoint is in {output} yet"
    state, _ = read_checkpoint(output)
    return f"the checkpoint in {output} is whole, at step {state['step']}: go on from it with --resume"
