"""Closed expressions of latents in band fluxes, and of physical quantities in latents, by symbolic regression."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from astropy.table import Table
from jaxtyping import Float

from xlatent.core.errors import XlatentError
from xlatent.core.latent_columns import N_LATENTS
from xlatent.core.latents import LatentTable
from xlatent.science.resampling import assign_folds, bootstrap_interval, source_weights, subsample
from xlatent.science.selection import has_enough_sources, numeric_column, source_ids, valid_rows

LATENTS = tuple(f"z{i}" for i in range(N_LATENTS))
MIN_SOURCES = 50
MAX_ROWS = 5000
_OPERATORS = "add,sub,mul,div,sqrt,square,exp,log,tanh,constant,variable"
_POPULATION, _EVALUATIONS, _LONGEST = 300, 40_000, 25
_DIGITS = 3  # of the constants
_NEGLIGIBLE = 1e-3  # of the standard deviation of the target: a constant at the end that need not be written
_GAIN = 0.002  # of R² on the training part that a longer formula must bring
_DECADES = 2.0
_BEYOND = 1e100  # no value of anything


def find_formulas(
    table: LatentTable, targets: Sequence[str], seed: int = 0, progress: Callable[[int], None] | None = None
) -> Table:
    """Find formulas of growing length for each target, by genetic programming (Operon, Burlacu et al. 2020).

    A latent is written in band fluxes, as shares of the broad band's, so that formulas are free of units; any other
    quantity in the means of the latents. Four fifths of the sources are for the search: a formula is kept if no shorter
    one is as accurate on them, to 0.002 in R². Its constants are rounded to three digits, and it is scored as printed,
    on the fifth of the sources that the search has not seen.

    Parameters
    ----------
    table : LatentTable
        At most `MAX_ROWS` rows with a value are used, drawn at random.
    targets : sequence of str
        Latents ``z0`` to ``z7``, or columns of numbers. One that is positive and spans two decades (1st to 99th
        percentile) is written in logarithms.
    seed : int
        Of folds, search and resampling.
    progress : callable, optional
        Called with the number of targets done.

    Returns
    -------
    Table
        A row a formula, in order of length: ``target`` (``log10 flux_b`` for logarithms), ``formula`` (as Python reads
        it, in names of columns), ``latex`` (with the left side), ``length`` (numbers, variables and operators), ``r2``
        of the held-out sources with ``r2_lolim`` and ``r2_hilim`` (68 %, sources resampled), ``r2_search``,
        ``n_sources`` held out.

    Raises
    ------
    ParameterError
        If a column is missing or not made of numbers.
    XlatentError
        If pyoperon or sympy is missing.

    Warns
    -----
    XlatentWarning
        Of each column left out for want of `MIN_SOURCES` sources or of a second value.
    """
    columns = {target: numeric_column(table, target) for target in targets}
    good, every_source = valid_rows(table), source_ids(table)
    found: list[dict[str, Any]] = []
    for done, (target, values) in enumerate(columns.items(), start=1):
        names, inputs = _inputs(table, target)
        chosen = good & np.isfinite(values) & np.isfinite(inputs).all(axis=1)
        rows = subsample(np.flatnonzero(chosen), MAX_ROWS, seed)
        y, sources = values[rows], every_source[rows]
        if has_enough_sources(target, y, sources, MIN_SOURCES):
            title, y = _logarithms(target, y)
            found += [{"target": title} | row for row in _front(title, names, inputs[rows], y, sources, seed)]
        if progress:
            progress(done)
    keys = ("target", "formula", "latex", "length", "r2", "r2_lolim", "r2_hilim", "r2_search", "n_sources")
    return Table({key: [row[key] for row in found] for key in keys})


@contextmanager
def _operon_needed() -> Iterator[None]:
    """Turn a failed import of what only formulas need into one sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("pyoperon", "sympy", "sklearn"):
            raise
        raise XlatentError(
            f'{error.name} is not installed, and this needs it: pip install "xlatent[science]"'
        ) from None


def _inputs(table: LatentTable, target: str) -> tuple[tuple[str, ...], np.ndarray]:
    """The variables as they are written, and their values [n, d]."""
    if target not in LATENTS:
        return LATENTS, table.z
    broad = numeric_column(table, "flux_b")
    shares = [numeric_column(table, f"flux_{band}") / np.where(broad > 0, broad, np.nan) for band in "smh"]
    return tuple(f"flux_{band}/flux_b" for band in "smh"), np.stack(shares, axis=1)


def _logarithms(target: str, y: np.ndarray) -> tuple[str, np.ndarray]:
    low, high = np.percentile(y, (1, 99))
    if y.min() > 0 and high > 10**_DECADES * low:
        return f"log10 {target}", np.log10(y)
    return target, y


def _front(
    title: str,
    names: tuple[str, ...],
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    sources: np.ndarray,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """The formulas of one target that are worth their length."""
    with _operon_needed():
        import sympy
        from pyoperon.sklearn import SymbolicRegressor
    sources = np.unique(sources, return_inverse=True)[1]
    held = assign_folds(sources, seed=seed) == 0
    search: Any = SymbolicRegressor(
        allowed_symbols=_OPERATORS,
        objectives=["r2", "length"],
        max_length=_LONGEST,
        population_size=_POPULATION,
        generations=_EVALUATIONS,  # the evaluations end it
        max_evaluations=_EVALUATIONS,
        optimizer_iterations=3,
        n_threads=1,
        random_state=seed,
    )
    search.fit(x[~held], y[~held])
    symbols = [sympy.Symbol(f"X{i + 1}") for i in range(len(names))]  # as Operon calls them
    weights, of_search = source_weights(sources), 0.0
    latex_of = {sympy.Symbol(name): _latex(name) for name in ("flux_s", "flux_m", "flux_h", "flux_b", *LATENTS)}
    candidates = [sympy.sympify(search.get_model_string(one["tree"], 6)) for one in search.pareto_front_]
    nowhere_real = (sympy.I, sympy.nan, sympy.zoo, sympy.oo)
    least = _NEGLIGIBLE * float(y[~held].std())
    candidates = [_rounded(formula, least) for formula in candidates if not formula.has(*nowhere_real)]
    predictions = [_evaluate(formula, symbols, x) for formula in candidates]
    of_candidates = [_r2(y, predicted, np.where(held, 0.0, weights)) for predicted in predictions]
    for place in sorted(range(len(candidates)), key=lambda i: (_length(candidates[i]), -of_candidates[i])):
        formula, predicted, r2 = candidates[place], predictions[place], of_candidates[place]
        if r2 < of_search + _GAIN:
            continue
        of_search = r2
        # Where a formula gives no number it knows nothing.
        told = np.where(np.isfinite(predicted), predicted, y[~held].mean())[held]

        def score(w: np.ndarray, told: np.ndarray = told) -> float:
            return _r2(y[held], told, w)

        low, high = bootstrap_interval(score, sources[held], seed)
        written = formula.xreplace(dict(zip(symbols, map(sympy.sympify, names), strict=True)))
        logarithm, _, name = title.rpartition(" ")
        left_side = (r"\log_{10} " if logarithm else "") + _latex(name)
        yield {
            "formula": str(written),
            "latex": f"{left_side} = {sympy.latex(written, symbol_names=latex_of)}",
            "length": _length(formula),
            "r2": score(weights[held]),
            "r2_lolim": low,
            "r2_hilim": high,
            "r2_search": r2,
            "n_sources": len(np.unique(sources[held])),
        }


def _latex(name: str) -> str:
    """A column's name in LaTeX: z and F with their indices, others upright."""
    if name in LATENTS:
        return f"z_{{{name[1:]}}}"
    if name in ("flux_s", "flux_m", "flux_h", "flux_b"):
        return f"F_{{{name[-1]}}}"
    return rf"\mathrm{{{name}}}".replace("_", r"\_")


def _rounded(formula: Any, least: float) -> Any:
    """With constants of three digits, without factors of one and without a constant term below ``least``."""
    import sympy

    constant, rest = formula.as_coeff_Add()
    formula = rest if abs(constant) < least else formula
    rounded = {number: sympy.Float(str(round(number, _significant(number)))) for number in formula.atoms(sympy.Float)}
    whole = {old: sympy.Integer(round(new)) for old, new in rounded.items() if float(new) in (-1.0, 0.0, 1.0)}
    return formula.xreplace(rounded | whole)


def _significant(number: Any) -> int:
    """Decimal places that leave three digits of a number."""
    return _DIGITS - 1 - int(np.floor(np.log10(abs(float(number))))) if number else _DIGITS


def _length(formula: Any) -> int:
    import sympy

    return sum(1 for _ in sympy.preorder_traversal(formula))


def _evaluate(formula: Any, symbols: list[Any], x: np.ndarray) -> Float[np.ndarray, " n"]:
    import sympy

    with np.errstate(all="ignore"):  # what is not finite is left out by the caller
        values = np.asarray(sympy.lambdify(symbols, formula, "numpy")(*x.T), dtype=float)
        return np.where(np.abs(values) < _BEYOND, values, np.nan) + np.zeros(len(x))


def _r2(y: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> float:
    """Share of the weighted variance that is predicted; minus infinity where a prediction is not finite."""
    if not np.isfinite(predicted[weights > 0]).all():
        return -np.inf
    mean = np.average(y, weights=weights)
    left = np.average((y - np.where(weights > 0, predicted, 0.0)) ** 2, weights=weights)
    return float(1.0 - left / np.average((y - mean) ** 2, weights=weights))
