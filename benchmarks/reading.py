"""How fast files are read, projected and embedded, beside Sherpa on the same files in the same rounds."""

import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import xlatent as xl
from machine import seconds, spread
from words import table
from xlatent.core.absorption import cross_section
from xlatent.formats.inputs import Source, find
from xlatent.formats.ogip_response import ResponseReader
from xlatent.infer.embed import LatentModel
from xlatent.infer.observation import prepare
from xlatent.workflows.simulate import simulate

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "spectra" / "manifest.csv"
LOAD, FIT = "Sherpa: load", "Sherpa: fit"
READ, SHARED, FIELD = "read and project", "read and project, response known", "read and project, RMF known"
EMBED, REFINE = "embed, not refined", "embed, refined"
TARGETS = {READ: 15, EMBED: 40, REFINE: 20}  # times as fast as Sherpa's load, or its load and one fit
EQUAL = 1e-6
INDEX = 1.7


def run(quick: bool = False) -> dict[str, Any]:
    """Time every real spectrum, or simulated ones where there are none; responses kept in memory are let go first.

    Sherpa's time is that of ``load_pha``, with ``load_arf`` and ``load_rmf`` where the header names neither, and of one
    fit of a power law under photoelectric absorption (three free parameters, from 10²² cm⁻², index 1.7 and as many
    counts as there are) by Levenberg and Marquardt (``levmar``) to the counts of ungrouped channels in 0.5-8 keV, by
    ``wstat`` with a background and ``cstat`` without.
    """
    model = xl.load_model(threads=1)
    responses = ResponseReader()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        sources = find([REAL if REAL.is_file() else _simulated(stack)])[: 4 if quick else None]
        sherpa = _sherpa()
        model.embed(_read(sources[0], responses))  # what is computed once is no part of the rate
        arfs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        taken: dict[str, dict[str, list[float]]] = {source.name: {} for source in sources}
        differences = {source.name: _difference(sherpa, source) for source in sources} if sherpa else {}
        for turn in range(1 if quick else 5):
            for source in sources:
                own = replace(source, arf=_copy(source.arf, arfs / f"{turn}_{source.name}.arf"))
                for name, work in _works(sherpa, model, source, own, responses).items():
                    if name not in (SHARED, FIELD):
                        responses.clear_cache()
                    taken[source.name].setdefault(name, []).append(seconds(work, 1))
        together: dict[str, list[float]] = {}
        for _ in range(1 if quick else 3):
            for name in (EMBED, REFINE):
                responses.clear_cache()
                for known in ("", ", responses known"):
                    time = seconds(
                        lambda name=name: model.embed(
                            [_read(one, responses) for one in sources], refine=name == REFINE
                        ),
                        1,
                    )
                    together.setdefault(name + known, []).append(time / len(sources))
    typical = {source: {name: median(times) for name, times in of.items()} for source, of in taken.items()}
    return _report(typical, differences, {name: median(times) for name, times in together.items()})


def _works(
    sherpa: Any, model: LatentModel, source: Source, own: Source, responses: ResponseReader
) -> dict[str, Callable[[], Any]]:
    """What is timed for a spectrum in each round; ``own`` has another ARF, as sources of one field have."""
    projector = model.projector
    theirs: dict[str, Callable[[], Any]] = {}
    if sherpa is not None:
        theirs = {LOAD: lambda: _load(sherpa, source), FIT: lambda: _fit(sherpa)}
    return theirs | {
        READ: lambda: prepare(_read(source, responses), projector),
        SHARED: lambda: prepare(_read(source, responses), projector),
        FIELD: lambda: prepare(_read(own, responses), projector),
        EMBED: lambda: model.embed(_read(source, responses), refine=False),
        REFINE: lambda: model.embed(_read(source, responses)),
    }


def _copy(arf: Path | None, name: Path) -> Path | None:
    return None if arf is None else Path(shutil.copy(arf, name))


def _report(
    taken: dict[str, dict[str, float]], differences: dict[str, float], together: dict[str, float]
) -> dict[str, Any]:
    """Targets, a line for each spectrum, and what is kept of them."""
    kinds = (READ, SHARED, FIELD, EMBED, REFINE)
    theirs = {
        source: dict.fromkeys((READ, SHARED, FIELD), t[LOAD]) | dict.fromkeys((EMBED, REFINE), t[LOAD] + t[FIT])
        for source, t in taken.items()
        if LOAD in t
    }
    rows = []
    for source, times in taken.items():
        ratios = [f"{theirs[source][name] / times[name]:.1f}" if theirs else "" for name in kinds]
        rows.append([source, *ratios, *(f"{1e3 * times[name]:.1f}" for name in (LOAD, FIT, *kinds) if name in times)])
    head = ["spectrum", *(f"{name}: ratio" for name in kinds)]
    tables = [table([*head, *(f"{name} (ms)" for name in (LOAD, FIT, *kinds) if theirs or name in kinds)], rows)]
    scores: dict[str, Any] = {
        "seconds": {name: spread([times[name] for times in taken.values()]) for name in kinds},
        "seconds of one of all": together,
    }
    if not theirs:
        tables.append("Sherpa is not installed (`pip install sherpa`): there is nothing to compare with.")
        return {"targets": [], "tables": tables, "scores": scores}
    ratio = {name: spread([theirs[source][name] / taken[source][name] for source in theirs]) for name in kinds}
    found = [(name, TARGETS[READ], ratio[name]["median"]) for name in (READ, FIELD, SHARED)]
    found += [(f"{name}, one by one", TARGETS[name], ratio[name]["median"]) for name in (EMBED, REFINE)]
    each = {name: float(np.mean([theirs[source][name] for source in theirs])) for name in (EMBED, REFINE)}
    for name, time in together.items():
        kind = EMBED if name.startswith(EMBED) else REFINE
        found.append((f"{name}, all in one call", TARGETS[kind], each[kind] / time))
    targets: list[list[Any]] = [
        [
            f"{what}: Sherpa's {'load and fit' if least > TARGETS[READ] else 'load'} over it",
            f"≥ {least}",
            f"{value:.1f}",
            value >= least,
        ]
        for what, least, value in found
    ]
    worst = max(differences.values())
    targets.append(["largest relative difference from Sherpa", f"≤ {EQUAL:g}", f"{worst:.1e}", worst <= EQUAL])
    return {"targets": targets, "tables": tables, "scores": scores | {"ratios": ratio, "differences": differences}}


def _read(source: Source, responses: ResponseReader | None = None) -> xl.Spectrum:
    return xl.read(source.pha, source.arf, source.rmf, source.background, source.name, responses=responses)


def _simulated(stack: ExitStack) -> str:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    simulate(24, 1, folder)
    return folder


def _sherpa() -> Any:
    """Sherpa's interface without its remarks; None where it is not installed."""
    try:
        from sherpa.astro import ui
    except ImportError:
        return None
    logging.getLogger("sherpa").setLevel(logging.CRITICAL)
    return ui


def _absorbed(parameters: Sequence[float], lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """Photons/cm2/s in each bin: column in 10²² cm⁻², photon index, photons/keV/cm2/s at 1 keV."""
    nh, index, amplitude = parameters
    middle = np.sqrt(lo * hi)
    return amplitude * np.exp(-nh * _cross_section(middle.tobytes())) * middle**-index * (hi - lo)


@cache
def _cross_section(energies: bytes) -> np.ndarray:
    return cross_section(np.maximum(np.frombuffer(energies), 0.03))


def _load(ui: Any, source: Source) -> Any:
    ui.clean()
    ui.load_pha(str(source.pha))
    if not ui.get_data().response_ids:
        ui.load_arf(str(source.arf))
        ui.load_rmf(str(source.rmf))
    return ui.get_data()


def _fit(ui: Any) -> None:
    ui.ungroup()
    ui.notice(0.5, 8.0)
    ui.set_method("levmar")
    ui.set_stat("wstat" if ui.get_data().background_ids else "cstat")
    ui.load_user_model(_absorbed, "absorbed")
    ui.add_user_pars("absorbed", ["nh", "index", "ampl"], [1.0, INDEX, 1e-4], [0.0, -3.0, 0.0], [100.0, 10.0, 1e3])
    model = ui.get_model_component("absorbed")
    ui.set_source(model)
    model.ampl = 1e-4 * ui.calc_data_sum() / ui.calc_model_sum()
    ui.fit()


def _difference(ui: Any, source: Source) -> float:
    """Largest relative difference from Sherpa, of scales, counts, areas and a power law folded through the response."""
    data, ours = _load(ui, source), _read(source)
    response = ours.response
    arf, rmf = data.get_response()
    lo, hi = response.energy_lo, response.energy_hi
    photons = (lo ** (1 - INDEX) - hi ** (1 - INDEX)) / (INDEX - 1)
    pairs = [
        (data.counts, ours.counts), (data.exposure, ours.exposure), (data.backscal, ours.backscale),
        (arf.specresp, response.area), (rmf.apply_rmf(arf.apply_arf(photons)), response.fold(photons)),
    ]  # fmt: skip
    if ours.background is not None:
        theirs = data.get_background()
        pairs += [
            (theirs.counts, ours.background.counts), (theirs.exposure, ours.background.exposure),
            (theirs.backscal, ours.background.backscale),
        ]  # fmt: skip
    return max(float(np.max(np.abs(a - b)) / np.max(np.abs(a))) for a, b in pairs)


if __name__ == "__main__":
    found = run()
    print(*found["tables"], table(["", "target", "found", "reached"], found["targets"]), sep="\n\n")
