"""What a benchmark ran on, and how fast that machine multiplies matrices and copies memory at the time."""

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from threadpoolctl import threadpool_info, threadpool_limits

_LIBRARIES = ("xlatent", "numpy", "scipy", "astropy", "onnxruntime", "pyarrow", "torch")
_SIDE = 1024  # of the matrices


def describe() -> dict[str, Any]:
    """Processor, memory, system and versions of libraries."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: found for name in _LIBRARIES if (found := _version(name))},
        "blas": sorted({f"{i['internal_api']} {i['version']}" for i in threadpool_info() if i["user_api"] == "blas"}),
        "load": round(os.getloadavg()[0], 2),
    }


def said(machine: dict[str, Any]) -> str:
    """A machine in one line."""
    libraries = ", ".join(f"{name} {number}" for name, number in machine["libraries"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB, {machine['system']}, "
        f"Python {machine['python']}, {libraries}, {', '.join(machine['blas'])}; "
        f"{machine['gflops']:.0f} GFLOP/s of one thread in float32, {machine['copied_gb_per_s']:.0f} GB/s copied; "
        f"load {machine['load']} at the start"
    )


def product_rate(threads: int = 1, rounds: int = 5) -> float:
    """Operations a second of a float32 matrix product, the best of a few."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2, _SIDE, _SIDE), dtype=np.float32)
    with threadpool_limits(threads, user_api="blas"):
        return 2.0 * _SIDE**3 / min(seconds(lambda: a @ b, threads) for _ in range(rounds + 1))


def copy_rate(rounds: int = 5) -> float:
    """Bytes a second of a copy that no cache holds, read and written bytes both counted."""
    source = np.ones(2**25)
    target = np.empty_like(source)
    return 2.0 * source.nbytes / min(seconds(lambda: np.copyto(target, source), 1) for _ in range(rounds + 1))


def seconds(work: Callable[[], Any], threads: int) -> float:
    """Time of some work: that of the process where it has one thread, which others on the machine disturb least."""
    clock = time.process_time if threads == 1 else time.perf_counter
    began = clock()
    work()
    return clock() - began


def spread(values: list[float]) -> dict[str, float]:
    """What is kept of a figure measured several times."""
    return {
        "median": float(np.median(values)), "min": min(values), "max": max(values), "rounds": len(values),
    }  # fmt: skip


def _cpu() -> str:
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.is_file() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
