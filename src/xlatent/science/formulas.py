"""Closed expressions of latents in band fluxes, and of physical quantities in latents, by symbolic regression."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from astropy.table import Table
from jaxtyping import Float

from xlatent.core.extras import requires_extra
from xlatent.core.latent_columns import N_LATENTS
from xlatent.core.latents import LatentTable
from xlatent.science.resampling import assign_folds, bootstrap_interval, source_weights, subsample
from xlatent.science.selection import has_enough_sources, log_if_wide, numeric_column, source_ids, valid_rows
from xlatent.science.weighted_scores import r_squared

LATENTS = tuple(f"z{i}" for i in range(N_LATENTS))
MIN_SOURCES = 50
MAX_ROWS = 5000
_OPERATORS = "add,sub,mul,div,sqrt,square,exp,log,tanh,constant,variable"
_POPULATION, _EVALUATIONS, _MAX_LENGTH = 300, 40_000, 25
_DIGITS = 3  # of the constants
_NEGLIGIBLE = 1e-3  # of the standard deviation of the target: a constant at the end that need not be written
_MIN_GAIN = 0.002  # of R² on the training part that a longer formula must bring
_OVERFLOW = 1e100  # no value of anything
_SHARES, _WHOLE = ("flux_s", "flux_m", "flux_h"), "flux_b"  # a latent is written in shares of the whole


def find_formulas(
    table: LatentTable, targets: Sequence[str], seed: int = 0, progress: Callable[[int], None] | None = None
) -> Table:
    """Find formulas of growing length for each target, by genetic programming.

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

    References
    ----------
    Burlacu, Kronberger & Kommenda 2020, GECCO, 1562 (Operon).

    Examples
    --------
    >>> z = np.random.default_rng(0).standard_normal((60, 8))
    >>> columns = {"name": [f"s{i}" for i in range(60)], "slope": 2.0 * z[:, 0]}
    >>> table = LatentTable.from_posterior(z, np.tile(0.01 * np.eye(8), (60, 1, 1)), columns)
    >>> result = find_formulas(table, ["slope"])
    >>> result["formula"][-1], round(float(result["r2"][-1]), 3)
    (np.str_('2.0*z0'), 1.0)
    """
    columns = {target: numeric_column(table, target) for target in targets}
    valid, every_source = valid_rows(table), source_ids(table)
    found: list[dict[str, Any]] = []
    for done, (target, values) in enumerate(columns.items(), start=1):
        names, inputs = _inputs(table, target)
        chosen = valid & np.isfinite(values) & np.isfinite(inputs).all(axis=1)
        rows = subsample(np.flatnonzero(chosen), MAX_ROWS, seed)
        y, sources = values[rows], every_source[rows]
        if has_enough_sources(target, y, sources, MIN_SOURCES):
            title, y = log_if_wide(target, y)
            left_side = (r"\log_{10} " if title != target else "") + _latex(target)
            for row in _search(names, inputs[rows], y, sources, seed):
                found.append(row | {"target": title, "latex": f"{left_side} = {row['latex']}"})
        if progress:
            progress(done)
    keys = ("target", "formula", "latex", "length", "r2", "r2_lolim", "r2_hilim", "r2_search", "n_sources")
    return Table({key: [row[key] for row in found] for key in keys})


def to_latex(found: Table) -> str:
    r"""Write the formulas that `find_formulas` found as a LaTeX table.

    Examples
    --------
    >>> print(to_latex(Table({"latex": ["y = 2 x"], "length": [3], "r2": [0.97]})).splitlines()[3])
    $y = 2 x$ & 3 & 0.970 \\
    """
    rows = [rf"${row['latex']}$ & {row['length']} & {row['r2']:.3f} \\" for row in found]
    return "\n".join([r"\begin{tabular}{lrr}", r"Formula & Length & $R^2$ \\", r"\hline", *rows, r"\end{tabular}", ""])


def _inputs(table: LatentTable, target: str) -> tuple[tuple[str, ...], np.ndarray]:
    """The variables as they are written, and their values [n, d]."""
    if target not in LATENTS:
        return LATENTS, table.z
    whole = numeric_column(table, _WHOLE)
    shares = [numeric_column(table, name) / np.where(whole > 0, whole, np.nan) for name in _SHARES]
    return tuple(f"{name}/{_WHOLE}" for name in _SHARES), np.stack(shares, axis=1)


def _search(
    names: tuple[str, ...],
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    sources: np.ndarray,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """The formulas of one target that are worth their length."""
    with requires_extra("science", "pyoperon", "sympy", "sklearn"):
        import sympy
        from pyoperon.sklearn import SymbolicRegressor
    held_out = assign_folds(sources, seed=seed) == 0
    search: Any = SymbolicRegressor(
        allowed_symbols=_OPERATORS,
        objectives=["r2", "length"],
        max_length=_MAX_LENGTH,
        population_size=_POPULATION,
        generations=_EVALUATIONS,  # the evaluations end it
        max_evaluations=_EVALUATIONS,
        optimizer_iterations=3,
        n_threads=1,
        random_state=seed,
    )
    search.fit(x[~held_out], y[~held_out])
    symbols = [sympy.Symbol(f"X{i + 1}") for i in range(len(names))]  # as Operon calls them
    weights, best_r2 = source_weights(sources), 0.0
    latex_of = {sympy.Symbol(name): _latex(name) for name in (*_SHARES, _WHOLE, *LATENTS)}
    candidates = [sympy.sympify(search.get_model_string(one["tree"], 6)) for one in search.pareto_front_]
    nowhere_real = (sympy.I, sympy.nan, sympy.zoo, sympy.oo)
    least = _NEGLIGIBLE * float(y[~held_out].std())
    candidates = [_rounded(formula, least) for formula in candidates if not formula.has(*nowhere_real)]
    predictions = [_evaluate(formula, symbols, x) for formula in candidates]
    search_r2 = [r_squared(y, predicted, np.where(held_out, 0.0, weights)) for predicted in predictions]
    for place in sorted(range(len(candidates)), key=lambda i: (_length(candidates[i]), -search_r2[i])):
        formula, predicted, r2 = candidates[place], predictions[place], search_r2[place]
        if r2 < best_r2 + _MIN_GAIN:
            continue
        best_r2 = r2
        # Where a formula gives no number it knows nothing.
        predicted = np.where(np.isfinite(predicted), predicted, y[~held_out].mean())
        score = partial(r_squared, y[held_out], predicted[held_out])
        low, high = bootstrap_interval(score, sources[held_out], seed)
        written = formula.xreplace(dict(zip(symbols, map(sympy.sympify, names), strict=True)))
        yield {
            "formula": str(written),
            "latex": sympy.latex(written, symbol_names=latex_of),
            "length": _length(formula),
            "r2": score(weights[held_out]),
            "r2_lolim": low,
            "r2_hilim": high,
            "r2_search": r2,
            "n_sources": len(np.unique(sources[held_out])),
        }


def _latex(name: str) -> str:
    """A column's name in LaTeX: z and F with their indices, others upright."""
    if name in LATENTS:
        return f"z_{{{name[1:]}}}"
    if name in (*_SHARES, _WHOLE):
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
        return np.where(np.abs(values) < _OVERFLOW, values, np.nan) + np.zeros(len(x))
