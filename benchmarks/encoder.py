"""How near encoder and decoder come to the rate at which the machine multiplies matrices, and what bounds them."""

import json
import math
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import shape_inference

from machine import copy_rate, product_rate, seconds, spread
from words import table
from xlatent.core.bundle import DEFAULT_MODEL, locate, read_info

LEAST = 0.55
SIZES = (16, 32, 64, 128, 256, 512, 1024)
THREADS = (1, 2)
TYPICAL = 64  # spectra at a time, where the costs of one graph are told
LATENTS = 8


def run(quick: bool = False) -> dict[str, Any]:
    """Rates of both graphs by batch and threads, beside a matrix product in the same round; then where the time goes.

    The decoder is run as refinement runs it at both ends of its way: with its Jacobian.
    """
    folder = locate(DEFAULT_MODEL)
    read_info(folder)  # checks the files
    sizes, rounds = ((16, 64), 3) if quick else (SIZES, 11)
    targets: list[list[Any]] = []
    tables: list[str] = []
    scores: dict[str, Any] = {}
    copied = copy_rate()
    for name in ("encoder", "decoder"):
        graph = folder / f"{name}.onnx"
        known = costs(graph, TYPICAL)
        rates = {
            threads: {n: rate(graph, n, threads, known["operations"], rounds) for n in sizes} for threads in THREADS
        }
        scores[name] = {
            f"{threads} threads, batch {n}": found for threads, of in rates.items() for n, found in of.items()
        }
        shares = kernels(graph, TYPICAL, rounds)
        scores[name]["kernels"] = shares
        tables += [rate_table(name, rates), roofline(name, known, rates[1], copied, shares)]
        if name == "encoder":
            best = max(rates[1], key=lambda n: rates[1][n]["of the product"]["median"])
            share = rates[1][best]["of the product"]["median"]
            what = f"encoder alone, of the machine's matrix product (one thread, batches of {best})"
            targets.append([what, f"≥ {LEAST:.0%}", f"{share:.1%}", share >= LEAST])
    return {"targets": targets, "tables": tables, "scores": scores}


def rate(graph: Path, n: int, threads: int, operations: float, rounds: int) -> dict[str, dict[str, float]]:
    """Spectra a second, and operations a second as a fraction of those of a matrix product timed beside them."""
    session = _session(graph, threads)
    inputs = _inputs(session, n)
    repeats = max(1, round(256 / n))

    def work() -> None:
        for _ in range(repeats):
            session.run(None, inputs)

    work()
    rates, shares = [], []
    for _ in range(rounds):
        product = product_rate(threads, rounds=1)
        rates.append(repeats * n / seconds(work, threads))
        shares.append(rates[-1] * operations / product)
    return {"per second": spread(rates), "of the product": spread(shares)}


def costs(graph: Path, n: int) -> dict[str, float]:
    """Operations of matrix products, and bytes of weights and of everything between, for one of ``n`` spectra."""
    model = onnx.load(graph)
    sizes = {"batch": n, "directions": LATENTS}
    for given in model.graph.input:
        for side in given.type.tensor_type.shape.dim:
            if side.dim_param:
                side.dim_value = sizes[side.dim_param]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    model = shape_inference.infer_shapes(model, data_prop=True, strict_mode=True)
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    values = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    shapes = {v.name: [side.dim_value for side in v.type.tensor_type.shape.dim] for v in values} | weights
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
    operations = sum(2 * math.prod(shapes[p.output[0]]) * shapes[p.input[0]][-1] for p in products)
    ends = sum(math.prod(shapes[v.name]) for v in (*model.graph.input, *model.graph.output))
    between = sum(math.prod(shapes[name]) for node in model.graph.node for name in (*node.input, *node.output) if name)
    held = sum(math.prod(dims) for dims in weights.values())
    return {
        "operations": operations / n,
        "weights": 4.0 * held,
        "least bytes": 4.0 * (ends + held) / n,
        "most bytes": 4.0 * between / n,
    }


def kernels(graph: Path, n: int, rounds: int) -> dict[str, dict[str, float]]:
    """Share of the time that each kind of kernel takes, of those that take a hundredth of it."""
    shares: dict[str, list[float]] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            session = _session(graph, 1, profile=f"{folder}/profile")
            inputs = _inputs(session, n)
            for _ in range(10):
                session.run(None, inputs)
            events = json.loads(Path(session.end_profiling()).read_text())
        taken: Counter[str] = Counter()
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
                taken[event["args"]["op_name"]] += event["dur"]
        for name, time in taken.items():
            shares.setdefault(name, []).append(time / taken.total())
    found = {name: spread(values) for name, values in shares.items()}
    large = [name for name, share in found.items() if share["median"] >= 0.01]
    return {name: found[name] for name in sorted(large, key=lambda name: -found[name]["median"])}


def rate_table(name: str, rates: dict[int, dict[int, dict[str, Any]]]) -> str:
    rows = [
        [
            f"{n:,}", threads, f"{found['of the product']['median']:.0%}",
            f"{found['of the product']['min']:.0%} to {found['of the product']['max']:.0%}",
            f"{found['per second']['median']:,.0f}",
        ]
        for threads, of in rates.items() for n, found in of.items()
    ]  # fmt: skip
    head = ["spectra at a time", "threads", "of the matrix product", "least to most", f"{name} (spectra/s)"]
    return table(head, rows)


def roofline(name: str, known: dict[str, float], rates: dict[int, Any], copied: float, shares: dict[str, Any]) -> str:
    """Time that arithmetic and memory need at least, beside the time that is taken."""
    product = product_rate()
    found = rates[TYPICAL]["per second"]["median"]
    least, most = (known[f"{which} bytes"] for which in ("least", "most"))
    arithmetic, memory = known["operations"] / product, least / copied
    products = {kernel for kernel in shares if "MatMul" in kernel or kernel == "Gemm"}
    in_products = sum(shares[kernel]["median"] for kernel in products)
    others = ", ".join(f"{k} {share['median']:.0%}" for k, share in shares.items() if k not in products)
    rows = [
        ["operations of a spectrum (matrix products)", f"{known['operations'] / 1e6:.2f} million"],
        ["bytes of a spectrum from and to memory, if all between stays in the caches", f"{least / 1e3:.1f} kB"],
        ["bytes of a spectrum that kernels read and write", f"{most / 1e3:.0f} kB"],
        ["operations a byte, from and to memory", f"{known['operations'] / least:,.0f}"],
        ["operations a byte at which the machine's arithmetic and memory are even", f"{product / copied:.1f}"],
        ["time of a spectrum: arithmetic at least", f"{1e6 * arithmetic:.0f} µs"],
        ["time of a spectrum: memory at least", f"{1e6 * memory:.1f} µs"],
        ["time of a spectrum: found", f"{1e6 / found:.0f} µs"],
        ["share of it in matrix products", f"{in_products:.0%} (others: {others})"],
        ["bound by", "arithmetic" if arithmetic > memory else "memory"],
    ]
    return table([f"{name}, {TYPICAL} spectra at a time, one thread", ""], rows)


def _session(graph: Path, threads: int, profile: str = "") -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _inputs(session: onnxruntime.InferenceSession, n: int) -> dict[str, np.ndarray]:
    """Random but plausible inputs of either graph, of those that it has."""
    rng = np.random.default_rng(0)
    bins = next((i.shape[1] for i in session.get_inputs() if i.name == "counts"), 1)
    unit, background = rng.gamma(2.0, 1.0, (n, bins)), rng.gamma(1.0, 1.0, (n, bins))
    values = {
        "counts": rng.poisson(unit * 10 ** rng.uniform(0.0, 3.0, (n, 1)) + background),
        "background": background,
        "unit": unit,
        "spread": rng.uniform(0.01, 0.1, (n, bins)),
        "scale": rng.uniform(0.0, 1.0, n),
        "z": rng.standard_normal((n, LATENTS)),
        "directions": np.eye(LATENTS),
    }
    return {i.name: values[i.name].astype(np.float32) for i in session.get_inputs()}
