"""The classifier of sources: trained on labelled sources, scored on held-out ones, written as ONNX with its card."""

import argparse
import json
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.progress import Progress

from xlatent.core.atomic import atomic
from xlatent.core.taxonomy import CLASSES
from xlatent.formats import catalogue_tables, latent_tables
from xlatent.science.classifier_training import KernelClassifier, train_classifier
from xlatent.science.classify import ALLOWED, build_features, output_name
from xlatent.science.selection import source_ids
from xlatent.workflows.evaluation.classification import (
    MIN_SIGNIFICANCE,
    LabelledSample,
    cross_validate_all,
    leading_directions,
    score_held_out,
    select_labelled,
)
from xlatent.workflows.evaluation.inputs import HARDNESS, LATENTS, Dataset, hardness_ratios

SPLITS = 5  # into folds, whose scores are averaged: what one split gives depends on luck
# Balanced accuracy, AGN against compact; and for all: calibration error, coverage.
LEAST = {
    LATENTS: (0.44, 0.77),
    f"{LATENTS} + flux + variability": (0.54, 0.79),
    f"{LATENTS} + flux + variability + nh_gal": (0.63, 0.91),
}
SUBSETS = [allowed for size in range(len(ALLOWED) + 1) for allowed in combinations(ALLOWED, size)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("latents", type=Path, help="table of `xlatent catalog embed` on the labelled sources")
    parser.add_argument("labels", type=Path, help="csc2_labelled_sources.csv")
    parser.add_argument(
        "--output", type=Path, help="folder for classifier.onnx and CLASSIFIER.md; scores alone if none"
    )
    parser.add_argument("--no-scores", action="store_true", help="make the file without judging it")
    given = parser.parse_args()
    began = time.time()
    sample = read(given.latents, given.labels)
    directions = leading_directions(sample.table)
    report = card(sample, {} if given.no_scores else average_scores(sample))
    if given.output:
        machines = {}
        with Progress() as progress:
            for allowed in progress.track(SUBSETS, description="Training"):
                x, weights = build_features(sample.table, directions, allowed)
                machines[allowed] = train_classifier(x, weights, sample.classes, source_ids(sample.table))
        write_onnx(machines, directions, sample.table.meta["model_sha256"], given.output / "classifier.onnx")
        (given.output / "CLASSIFIER.md").write_text(report)
    print(report, f"\n{time.time() - began:.0f} s")


def read(latents: Path, labels: Path) -> LabelledSample:
    """Latents with the catalogue's classes and other columns, rows joined by name."""
    table, catalogue = (
        latent_tables.read(latents),
        catalogue_tables.read_columns(labels, ("name", "class", "significance")),
    )
    place = {name: row for row, name in enumerate(catalogue["name"])}
    table = table[[row for row, name in enumerate(table["name"]) if name in place]]
    catalogue = catalogue[[place[name] for name in table["name"]]]
    more = {name: catalogue[name] for name in catalogue.colnames if name not in table.colnames}
    joined = table.with_columns(more)
    classes = np.asarray(catalogue["class"]).astype(str)
    ratios = {HARDNESS: hardness_ratios(joined)}
    return select_labelled(Dataset("labelled", table, joined, tuple(more), classes, ratios))


def average_scores(sample: LabelledSample) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Scores of held-out sources by what they are made from; those of z of the faint ones as well."""
    found: dict[str, list[dict[str, tuple]]] = {}
    with Progress() as progress:
        for seed in progress.track(range(SPLITS), description="Judging"):
            for made_from, held in cross_validate_all(sample, seed=seed).items():
                found.setdefault(made_from.label, []).append(score_held_out(sample, held, made_from))
                if made_from.representation == LATENTS:
                    every = np.arange(len(sample.classes))
                    faint_too = score_held_out(sample, held, made_from, every)
                    found.setdefault(f"{made_from.label}, faint ones as well", []).append(faint_too)
    return {
        of: {name: tuple(np.mean([score[name] for score in splits], axis=0)) for name in splits[0]}
        for of, splits in found.items()
    }


def write_onnx(
    machines: dict[tuple[str, ...], KernelClassifier], directions: np.ndarray, sha256: str, path: Path
) -> None:
    """One graph, with an output for each choice of what is allowed."""
    nodes, constants, outputs = [], [], []
    for allowed, machine in machines.items():
        output = output_name(allowed)

        def constant(what: str, value: Any, prefix: str = output) -> str:
            constants.append(numpy_helper.from_array(np.asarray(value, dtype=np.float64), f"{prefix}.{what}"))
            return f"{prefix}.{what}"

        def node(kind: str, *operands: str, to: str | None = None, prefix: str = output, **attributes: Any) -> str:
            to = to or f"{prefix}.{len(nodes)}"
            nodes.append(helper.make_node(kind, list(operands), [to], **attributes))
            return to

        gamma, landmarks = machine.gamma, machine.landmarks
        shifted = node("Sub", "x", constant("mean", machine.mean))
        scaled = node("Div", shifted, constant("scale", machine.scale))
        u = node("Where", node("IsNaN", scaled), constant("missing", 0.0), scaled)
        size = node("ReduceSum", node("Mul", u, u), "axes", keepdims=1)
        cross = node("MatMul", u, constant("landmarks", 2.0 * gamma * landmarks.T))
        own = node("Mul", size, constant("gamma", -gamma))
        place = node("Add", node("Add", cross, own), constant("sizes", -gamma * np.sum(landmarks**2, axis=1)))
        logits = node("MatMul", node("Exp", place), constant("weights", machine.weights))
        node("Softmax", node("Add", logits, constant("bias", machine.bias)), to=output, axis=1)
        outputs.append(helper.make_tensor_value_info(output, TensorProto.DOUBLE, ["n", len(machine.bias)]))
    constants.append(numpy_helper.from_array(np.array([1]), "axes"))
    x = helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["n", len(next(iter(machines.values())).mean)])
    graph = helper.make_graph(nodes, "classifier", [x], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    info = {
        "classes": CLASSES,
        "directions": directions.tolist(),
        "model_sha256": sha256,
        "thresholds": {output_name(allowed): machine.thresholds.tolist() for allowed, machine in machines.items()},
        "members": next(iter(machines.values())).members.tolist(),
    }
    helper.set_model_props(model, {"xlatent.classifier": json.dumps(info)})
    onnx.checker.check_model(model)
    with atomic(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def card(sample: LabelledSample, judged: dict[str, Any]) -> str:
    """What the classifier was trained on and how good it is, as Markdown."""
    table, classes, bright = sample.table, sample.classes, sample.bright
    counts = {n: (int(np.sum(classes == k)), int(np.sum(classes[bright] == k))) for k, n in enumerate(CLASSES)}
    mix = ", ".join(f"{name} {every} ({some})" for name, (every, some) in counts.items())
    lines = [
        "# Classifier of sources",
        "",
        f"Trained on {len(table)} CSC 2.0 sources with confirmed classes (Yang et al. 2022, ApJ 941, 104), their "
        f"latents from three band fluxes by model {table.meta['model']} ({table.meta['model_sha256'][:12]}): {mix}; in "
        f"parentheses those above significance {MIN_SIGNIFICANCE:g}, which are scored.",
        "",
        "Probabilities take all classes for equally common. Prediction sets hold the true class of 90 % of the sources "
        "of each class. Features: posterior of z along two directions and the hardness ratios that z decodes to; flux "
        "with the errors of z, variability and Galactic column only where allowed. The Galactic column tells where on "
        "the sky a source is, and so which surveys found and named the training set; use it with care. With the flux "
        "the errors of z are judged as those of band fluxes: leave it out for latents of spectra, which are sharper.",
        "",
        f"Scores of held-out sources (five-fold, mean of {SPLITS} splits; calibration and thresholds from the training "
        "part; 68 % intervals from resampling the scored sources), beside their targets. AGN against compact: HMXB, "
        "LMXB, NS, CV. Calibration error is of the sample's own mix of classes, its floor that of perfect "
        "probabilities with as many sources; debiased, the part that chance gives is taken out (Kumar, Liang & Ma "
        "2019, arXiv:1909.10155).",
        "",
    ]
    if judged:
        names = list(next(iter(judged.values())))
        lines += ["| from | " + " | ".join(names) + " |"]
        lines += ["|---|" + "---:|" * len(names)]
        for what, score in judged.items():
            cells = [f"{v:.3f} ({low:.3f}–{high:.3f}){target(what, name)}" for name, (v, low, high) in score.items()]
            cells += [""] * (len(names) - len(cells))
            lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def target(of: str, score: str) -> str:
    """What a score should be, in words."""
    if of not in LEAST:
        return ""
    accuracy, pair = LEAST[of]
    wanted = {
        "balanced accuracy": f"≥ {accuracy}",
        "AGN against compact": f"≥ {pair}",
        "calibration error": "≤ 0.03",
        "coverage": "0.88–0.92",
    }
    return f"; {wanted[score]}" if score in wanted else ""


if __name__ == "__main__":
    main()
