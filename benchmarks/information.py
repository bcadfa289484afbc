"""How much the latents tell of a source's parameters at 1,000 counts, beside what the data allow anybody to know."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from rich.progress import Progress
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import simulated
from command import alone
from embedding import embed
from methods import Seen, seen
from xlatent.core.bands import hardness_ratios
from xlatent.core.grid import ModelGrid
from xlatent.core.spectrum import Response
from xlatent.simulate import population

COUNTS = 1_000.0
SEED = 63_000  # never used in training
SHARE = 0.95  # of the limit, which is enough where the threshold lies beyond it
SCREENED = 4_000  # library members whose Poisson likelihood is computed, for each spectrum
LEAST_EFFECTIVE = 25.0  # below this many effective members the weights are made more equal


@dataclass(frozen=True)
class Question:
    """What is asked of which sources: ``values`` gives names and true values, ``asked`` the R² to reach."""

    chosen: Callable[[population.Parameters], Bool[np.ndarray, " n"]]
    values: Callable[[ModelGrid, population.Parameters, np.ndarray], dict[str, Float[np.ndarray, " n"]]]
    asked: float


def _plain(rows: population.Parameters) -> Bool[np.ndarray, " n"]:
    """Sources of one component without smooth distortion and not standing for a detector's background.

    Of two components, or of a bent one, the column, index or temperature would not be the source's.
    """
    return (rows["fraction"] == 1.0) & ~rows["distortion"].any(axis=1) & (rows["gamma_1"] >= -0.5)


def _family(rows: population.Parameters, name: str) -> Bool[np.ndarray, " n"]:
    return _plain(rows) & (rows["family_1"] == population.FAMILIES.index(name))


QUESTIONS = {
    "foreground absorption only, above 10^21": Question(
        lambda rows: _plain(rows) & (rows["nh_1"] == 0.0) & (rows["nh"] > 0.1),
        lambda grid, rows, photons: {"log N_H": np.log10(rows["nh"])},
        0.90,
    ),
    "power laws": Question(
        lambda rows: _family(rows, "powerlaw"), lambda grid, rows, photons: {"Γ": rows["gamma_1"]}, 0.90
    ),
    "plasmas": Question(
        lambda rows: _family(rows, "plasma"), lambda grid, rows, photons: {"log kT": np.log10(rows["kt_1"])}, 0.90
    ),
    "all sources": Question(
        lambda rows: np.ones(len(rows["nh"]), dtype=bool),
        lambda grid, rows, photons: hardness_ratios(photons, grid.energy),
        0.97,
    ),
}


def run(model: str | Path, paper: str | Path | None, n: int = 10_000, workers: int | None = None) -> dict[str, Any]:
    """Score what a bundle's latents tell, and what the data allow.

    Parameters
    ----------
    model, paper : str or Path
        Bundles, by name or folder; without ``paper`` its column is missing.
    n : int
        A question has 0.6 n sources to train on, 0.2 n to test and 10 n in the library of its limit, 2 n of which
        are observed for regressions straight from the counts to learn from.
    workers : int, optional
        Processes that embed.

    Returns
    -------
    dict
        ``targets``: name, asked, found, met; ``tables``: Markdown; ``regression``: the numbers.
    """
    grid = ModelGrid()
    responses = simulated.unseen_responses(grid)
    targets, results = [], {}
    for i, (sources, question) in enumerate(QUESTIONS.items()):
        rng = np.random.default_rng([SEED, i])
        n_train, n_test = int(0.6 * n), int(0.2 * n)
        rows, photons = draw(grid, rng, question, n_train + n_test)
        test = _observed(grid, rng, responses, photons)
        embedded = embed(model, paper, test.spectra, workers, sources)
        library = draw(grid, rng, question, 10 * n)
        known = question.values(grid, *library)
        means, effective = posterior_means(test, slice(n_train, None), library[1], known)
        more = _observed(grid, rng, responses, library[1][: 2 * n])
        features = _features(seen(more, grid)), _features(seen(test, grid))[n_train:]
        for name, truth in question.values(grid, rows, photons).items():
            codes = {"z": embedded.z, "paper": embedded.paper}
            found = _from_codes(codes, truth, n_train) | _from_counts(*features, known[name][: 2 * n], truth[n_train:])
            found["library"] = r_squared(truth[n_train:], means[name])
            limits = ("library", "boosting from counts", "network from counts")
            best = max(limits, key=lambda limit: found[limit])
            goal = min(question.asked, SHARE * found[best])
            results[name] = found | {
                "sources": sources,
                "limit": found[best],
                "limit from": best,
                "effective members": [float(np.quantile(effective, q)) for q in (0.1, 0.5, 0.9)],
                "goal": goal,
            }
            asked = f">= {question.asked:.2f}, or {SHARE:.0%} of {found[best]:.3f}"
            targets.append([f"R² of {name} from z, {sources}", asked, found["z"], found["z"] >= goal])
    return {"targets": targets, "tables": [_table(results, n)], "regression": results}


def draw(
    grid: ModelGrid, rng: np.random.Generator, question: Question, n: int
) -> tuple[population.Parameters, Float[np.ndarray, "n n_energy"]]:
    """Parameters and photon spectra of ``n`` sources that a question is about."""
    parts: list[population.Parameters] = []
    while sum(len(part["nh"]) for part in parts) < n:
        rows = population.draw(rng, 50_000)
        chosen = question.chosen(rows)
        parts.append({name: values[chosen] for name, values in rows.items()})
    rows = {name: np.concatenate([part[name] for part in parts])[:n] for name in parts[0]}
    photons = np.empty((n, grid.n_energy), dtype=np.float32)
    for begin in range(0, n, 2_000):
        some = {name: values[begin : begin + 2_000] for name, values in rows.items()}
        photons[begin : begin + 2_000] = population.spectra(grid.energy, some)
    return rows, photons


def r_squared(truth: Float[np.ndarray, " n"], found: Float[np.ndarray, " n"]) -> float:
    """Share of the variance of ``truth`` that ``found`` tells."""
    return float(1.0 - np.mean((truth - found) ** 2) / np.var(truth))


def _observed(
    grid: ModelGrid, rng: np.random.Generator, responses: list[Response], photons: Float[np.ndarray, "n n_energy"]
) -> simulated.TestSet:
    """See each source once at `COUNTS`, through one response or another."""
    n = len(photons)
    return simulated.observe(
        grid, rng, {}, np.full(n, COUNTS), responses, rng.integers(len(responses), size=n), photons
    )


def _features(view: Seen) -> Float[np.ndarray, "n n_features"]:
    """Net counts over the folded reference spectrum, of mean one and drawn together; then that spectrum itself."""
    flux = (view.counts - view.off) / (view.unit + 1e-4)
    flux /= np.maximum(flux.mean(axis=1, keepdims=True), 0.05)
    return np.concatenate([np.arcsinh(flux), np.log(view.unit + 1e-4)], axis=1)


def _from_codes(codes: dict[str, np.ndarray], truth: Float[np.ndarray, " n"], n_train: int) -> dict[str, float]:
    """R² on the test sources of regressions from z and from the paper's codes."""
    how = {
        "z": (codes["z"], _boosting()),
        "z, trees": (codes["z"], ExtraTreesRegressor(300, min_samples_leaf=2, random_state=0)),
        "paper": (codes["paper"], _boosting()),
    }
    return {
        name: r_squared(truth[n_train:], regressor.fit(x[:n_train], truth[:n_train]).predict(x[n_train:]))
        for name, (x, regressor) in how.items()
        if np.isfinite(x).all()
    }


def _from_counts(
    train: np.ndarray, test: np.ndarray, train_truth: Float[np.ndarray, " m"], truth: Float[np.ndarray, " n"]
) -> dict[str, float]:
    """R² of regressions from the counts: boosting on the flux-like spectrum, a network on the instrument as well."""
    n_chan = train.shape[1] // 2
    boosted = _boosting().fit(train[:, :n_chan], train_truth).predict(test[:, :n_chan])
    centre, scale = train_truth.mean(), train_truth.std()
    network = make_pipeline(
        StandardScaler(),
        MLPRegressor(
            hidden_layer_sizes=(256, 64),
            alpha=1e-2,
            early_stopping=True,
            max_iter=60,
            n_iter_no_change=6,
            random_state=0,
        ),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping after 60 rounds is meant
        network.fit(train, (train_truth - centre) / scale)
    learnt = network.predict(test)
    return {
        "boosting from counts": r_squared(truth, boosted),
        "network from counts": r_squared(truth, centre + scale * learnt),
    }


def _boosting() -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(
        learning_rate=0.05, max_iter=600, max_leaf_nodes=24, min_samples_leaf=15, l2_regularization=1.0,
        early_stopping=True, n_iter_no_change=20, random_state=0,
    )  # fmt: skip


# -- what the true posterior allows


def posterior_means(
    test: simulated.TestSet,
    chosen: slice,
    library: Float[np.ndarray, "m n_energy"],
    values: dict[str, Float[np.ndarray, " m"]],
) -> tuple[dict[str, Float[np.ndarray, " n"]], Float[np.ndarray, " n"]]:
    """Posterior means of quantities for some spectra, by importance sampling from a library of the same population.

    Members are folded through the spectrum's own response and weighted by their Poisson likelihood, the expected
    background known and the amplitude marginalised about its most likely value under a flat prior in its logarithm.
    Where fewer than `LEAST_EFFECTIVE` members carry the weight, the likelihood is raised to a power below 1 that
    spreads it: any estimate from the data bounds the best one from below, and this one is less noisy.

    Parameters
    ----------
    test : TestSet
    chosen : slice
        Which of its spectra.
    library : array [m, n_energy]
        Photon spectra.
    values : dict of arrays [m]
        The quantities of the library's members.

    Returns
    -------
    means : dict of arrays [n]
    effective : array [n]
        Effective number of members, before the weights were spread.
    """
    picked = np.arange(len(test.spectra))[chosen]
    means = {name: np.empty(len(picked)) for name in values}
    effective = np.empty(len(picked))
    with Progress() as progress:
        bar = progress.add_task("Weighing the library", total=len(picked))
        for state in np.unique(test.state[picked]):
            places = np.flatnonzero(test.state[picked] == state)
            response = test.spectra[picked[places[0]]].response
            matrix = response.area[:, None] * response.redistribution.toarray()
            folded = library @ matrix.astype(np.float32) + 1e-12
            folded /= folded.sum(axis=1, keepdims=True)
            squared = folded**2
            for place in places:
                i = picked[place]
                counts, background = test.spectra[i].counts, test.background[i]
                members = _screened(counts, background, folded, squared)
                log_weight = _log_likelihood(counts, background, folded[members].astype(np.float64))
                weight, effective[place] = _weights(log_weight)
                for name, value in values.items():
                    means[name][place] = weight @ value[members]
                progress.advance(bar)
    return means, effective


def _screened(
    counts: Float[np.ndarray, " n_chan"],
    background: Float[np.ndarray, " n_chan"],
    folded: Float[np.ndarray, "m n_chan"],
    squared: Float[np.ndarray, "m n_chan"],
) -> np.ndarray:
    """Members with the smallest χ², errors from the smoothed counts and the amplitude at its best."""
    if len(folded) <= SCREENED:
        return np.arange(len(folded))
    smooth = np.convolve(np.pad(counts, 3, mode="edge"), np.full(7, 1.0 / 7.0), mode="valid")
    weight = (1.0 / (np.maximum(smooth, background) + 0.5)).astype(np.float32)
    pull = folded @ (weight * (counts - background).astype(np.float32))
    gain = np.maximum(pull, 0.0) ** 2 / (squared @ weight)
    return np.argpartition(-gain, SCREENED)[:SCREENED]


def _log_likelihood(
    counts: Float[np.ndarray, " n_chan"],
    background: Float[np.ndarray, " n_chan"],
    shapes: Float[np.ndarray, "m n_chan"],
) -> Float[np.ndarray, " m"]:
    """Poisson log-likelihood of each shape on the background, the amplitude integrated about its best value."""
    log_a = np.full((len(shapes), 1), np.log(max(float((counts - background).sum()), 1.0)))
    for _ in range(6):
        source = np.exp(log_a) * shapes
        mean = source + background
        slope = (source * (1.0 - counts / mean)).sum(axis=1, keepdims=True)
        curvature = (source**2 / mean).sum(axis=1, keepdims=True)
        log_a -= np.clip(slope / curvature, -1.0, 1.0)
    mean = np.exp(log_a) * shapes + background
    return (counts * np.log(mean) - mean).sum(axis=1) - 0.5 * np.log(curvature[:, 0])


def _weights(log_weight: Float[np.ndarray, " m"]) -> tuple[Float[np.ndarray, " m"], float]:
    """Normalised weights, spread where few members would carry them, and the effective number before that."""

    def at(power: float) -> tuple[np.ndarray, float]:
        weight = np.exp(power * (log_weight - log_weight.max()))
        weight /= weight.sum()
        return weight, float(1.0 / np.sum(weight**2))

    weight, effective = at(1.0)
    low, high = 0.0, 1.0
    if effective < LEAST_EFFECTIVE:
        for _ in range(30):
            power = 0.5 * (low + high)
            low, high = (power, high) if at(power)[1] > LEAST_EFFECTIVE else (low, power)
        weight = at(low)[0]
    return weight, effective


def _table(results: dict[str, dict[str, Any]], n: int) -> str:
    lines = [
        f"R² at {COUNTS:.0f} counts through unseen responses; {int(0.6 * n)} sources train a regression, "
        f"{int(0.2 * n)} test it. The limit is the best of three estimates: the posterior mean from a library of "
        f"{10 * n} sources of the same kind with known background (beside it the effective number of members that "
        "bear it: median, and what a tenth of the spectra stay below), and gradient boosting and a small network "
        f"straight from the counts of {2 * n} sources. Each bounds what the true posterior allows from below.",
        "",
        "| quantity | sources | z, boosting | z, trees | paper | library (effective) | boosting from counts "
        "| network from counts | limit | share of it |",
        "|---|---|" + "---:|" * 8,
    ]
    for name, found in results.items():
        tenth, median, _ = found["effective members"]
        paper = f"{found['paper']:.3f}" if "paper" in found else "-"
        cells = [
            name, found["sources"], f"{found['z']:.3f}", f"{found['z, trees']:.3f}", paper,
            f"{found['library']:.3f} ({median:.0f}, {tenth:.0f})", f"{found['boosting from counts']:.3f}",
            f"{found['network from counts']:.3f}", f"{found['limit']:.3f}", f"{found['z'] / found['limit']:.0%}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    alone(run, __doc__, 10_000)
