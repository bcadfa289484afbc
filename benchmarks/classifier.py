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
from sklearn.ensemble import ExtraTreesClassifier

from xlatent.formats import tables
from xlatent.latents import LatentTable
from xlatent.science.classify import ALLOWED, CLASSES, COMPACT, features, head
from xlatent.science.fit_classes import Held, Machine, cross_validate, fit, scores
from xlatent.science.sampling import N_FOLDS, folds, source_of, usable

BRIGHT = 5.0  # significance of the sources that are scored
N_DIRECTIONS = 2  # three band fluxes are two colours
SUBSETS = [allowed for size in range(len(ALLOWED) + 1) for allowed in combinations(ALLOWED, size)]
SHOWN = [(), ("flux",), ("flux", "variability"), ("flux", "variability", "nh_gal")]


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
    table, classes, bright = labelled(given.latents, given.labels)
    directions = leading_directions(table)
    judged = {} if given.no_scores else judge(table, classes, bright, directions)
    report = card(table, classes, bright, judged)
    if given.output:
        machines = {}
        with Progress() as progress:
            for allowed in progress.track(SUBSETS, description="Training"):
                machines[allowed] = fit(*features(table, directions, allowed), classes, source_of(table))
        write_onnx(machines, directions, table.meta["model_sha256"], given.output / "classifier.onnx")
        (given.output / "CLASSIFIER.md").write_text(report)
    print(report, f"\n{time.time() - began:.0f} s")


def labelled(latents: Path, labels: Path) -> tuple[LatentTable, np.ndarray, np.ndarray]:
    """Latents with the catalogue's other columns, class numbers, and which sources are bright; rows joined by name."""
    table, catalogue = tables.read(latents), tables.read_columns(labels, ("name", "class", "significance"))
    place = {name: row for row, name in enumerate(catalogue["name"])}
    table = table[[row for row, name in enumerate(table["name"]) if name in place]]
    table = table[usable(table)]
    catalogue = catalogue[[place[name] for name in table["name"]]]
    more = {name: catalogue[name] for names in ALLOWED.values() for name in names if name in catalogue.colnames}
    table = LatentTable(dict(table.to_astropy().columns) | more, table.meta)
    classes = np.array([CLASSES.index(name) for name in catalogue["class"]])
    return table, classes, np.asarray(catalogue["significance"] > BRIGHT)


def leading_directions(table: LatentTable) -> np.ndarray:
    """Unit vectors along which the posterior means vary most: what the band fluxes measure [8, m]."""
    return np.linalg.svd(table.z - table.z.mean(axis=0), full_matrices=False)[2][:N_DIRECTIONS].T


def judge(
    table: LatentTable, classes: np.ndarray, bright: np.ndarray, directions: np.ndarray
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Scores of held-out sources from our features, and of the bright ones from band fluxes by trees."""
    sources, one, others = source_of(table), CLASSES.index("AGN"), [CLASSES.index(name) for name in COMPACT]

    def scored(held: Held, rows: np.ndarray = bright) -> dict[str, tuple[float, float, float]]:
        return scores(Held(held.p[rows], held.sets[rows]), classes[rows], sources[rows], one, others)

    judged = {}
    with Progress() as progress:
        bar = progress.add_task("Cross-validation", total=len(SHOWN))
        for allowed in SHOWN:
            x, stress = features(table, directions, allowed)
            held = cross_validate(x, stress, classes, sources)
            judged[" + ".join(["z", *allowed])] = scored(held)
            judged[" + ".join(["z", *allowed]) + ", faint ones as well"] = scored(held, np.ones(len(x), bool))
            plain = np.nan_to_num(x[:, 3 + 2 * N_DIRECTIONS :], nan=-1.0)
            ratios = np.stack([np.log10(table[f"flux_{a}"] / table[f"flux_{b}"]) for a, b in ("sm", "mh", "sh")], 1)
            hand_made = np.concatenate([ratios, plain], axis=1)
            trees = scored(_trees(hand_made, classes, sources))
            # Trees tell AGN from compact objects better if they are grown for that alone.
            pair = np.flatnonzero(np.isin(classes, [one, *others]))
            either = np.isin(classes[pair], others).astype(int)
            held, chosen = _trees(hand_made[pair], either, sources[pair]), bright[pair]
            alone = scores(Held(held.p[chosen], held.sets[chosen]), either[chosen], sources[pair][chosen], 0, [1])
            trees["one against others"] = alone["balanced accuracy"]
            judged[" + ".join(["band-flux ratios, trees", *allowed])] = trees
            progress.advance(bar)
    return judged


def _trees(x: np.ndarray, classes: np.ndarray, sources: np.ndarray) -> Held:
    """The baseline's extremely randomised trees on the same folds; without calibration or sets."""
    fold, p = folds(sources, classes, 1000), np.empty((len(x), classes.max() + 1))
    for k in range(N_FOLDS):
        out = fold == k
        trees = ExtraTreesClassifier(200, min_samples_leaf=5, class_weight="balanced", random_state=0)
        p[out] = trees.fit(x[~out], classes[~out]).predict_proba(x[out])
    return Held(p, np.zeros(p.shape, bool))


def write_onnx(machines: dict[tuple[str, ...], Machine], directions: np.ndarray, sha256: str, path: Path) -> None:
    """One graph, with an output for each choice of what is allowed."""
    nodes, constants, outputs = [], [], []
    for allowed, machine in machines.items():
        output = head(allowed)

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
        "thresholds": {head(allowed): machine.thresholds.tolist() for allowed, machine in machines.items()},
    }
    helper.set_model_props(model, {"xlatent.classifier": json.dumps(info)})
    onnx.checker.check_model(model)
    partial = path.with_suffix(".part")
    partial.write_bytes(model.SerializeToString())
    partial.replace(path)


def card(table: LatentTable, classes: np.ndarray, bright: np.ndarray, judged: dict[str, Any]) -> str:
    """What the classifier was trained on and how good it is, as Markdown."""
    counts = {n: (int(np.sum(classes == k)), int(np.sum(classes[bright] == k))) for k, n in enumerate(CLASSES)}
    mix = ", ".join(f"{name} {every} ({some})" for name, (every, some) in counts.items())
    lines = [
        "# Classifier of sources",
        "",
        f"Trained on {len(table)} CSC 2.0 sources with confirmed classes (Yang et al. 2022, ApJ 941, 104), their "
        f"latents from three band fluxes by model {table.meta['model']} ({table.meta['model_sha256'][:12]}): {mix}; in "
        f"parentheses those above significance {BRIGHT:g}, which are scored.",
        "",
        "Probabilities take all classes for equally common. Prediction sets hold the true class of 90 % of the sources "
        "of each class. Features: posterior of z along two directions, with its errors, and the hardness ratios that z "
        "decodes to; flux, variability and Galactic column only where allowed. The Galactic column tells where on the "
        "sky a source is, and so which surveys found and named the training set; use it with care.",
        "",
        "Scores of held-out sources (five-fold; calibration and thresholds from the training part; 68 % intervals from "
        "resampling the scored sources). AGN against compact: HMXB, LMXB, NS, CV. Calibration error is of the sample's "
        "own mix of classes, its floor that of perfect probabilities with as many sources.",
        "",
    ]
    if judged:
        names = list(next(iter(judged.values())))
        lines += ["| from | " + " | ".join(names).replace("one against others", "AGN against compact") + " |"]
        lines += ["|---|" + "---:|" * len(names)]
        for what, score in judged.items():
            cells = [f"{value:.3f} ({low:.3f}–{high:.3f})" for value, low, high in score.values()]
            if "trees" in what:
                cells = cells[:2] + [""] * (len(cells) - 2)
            lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
