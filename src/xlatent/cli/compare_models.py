"""``xlatent compare-models``: how the latents of two models relate."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from xlatent.cli.ui import progress_bar

if TYPE_CHECKING:
    from xlatent.core.grid import ModelGrid
    from xlatent.core.spectrum import Spectrum
    from xlatent.infer.compare import Comparison

_N_SIMULATED = 512
_CHUNK = 32  # spectra at a time: a native response is about a megabyte


def compare_models(
    a: Annotated[str, typer.Argument(metavar="A", help="Name or folder of a model.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="Name or folder of another.", show_default=False)],
    spectra: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT",
            help="PHA files, a folder, a pattern or a manifest (CSV) to compare them on, in place of "
            f"{_N_SIMULATED} simulated spectra of 1,000 to 100,000 counts; may be given more than once.",
        ),
    ] = None,
) -> None:
    """Say how the latents of two models relate: embed the same spectra with both and fit z_B = M z_A + b."""
    import numpy as np

    from xlatent.infer.compare import compare
    from xlatent.infer.embed import load_model

    models = [load_model(name, threads=1) for name in (a, b)]
    total, chunks = _read(spectra) if spectra else _simulated(models[0].grid)
    found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    done = 0
    with progress_bar("spectra", total) as show:
        for chunk in chunks:
            for model, rows in zip(models, found, strict=True):
                rows.append(model.embed(chunk).z)
            done += len(chunk)
            show(done)
    z_a, z_b = (np.concatenate(rows) for rows in found)
    _print(compare(z_a, z_b), models[0].info.name, models[1].info.name, len(z_a))


def _simulated(grid: "ModelGrid") -> "tuple[int, Iterator[list[Spectrum]]]":
    from xlatent.simulate.reference import reference_spectra

    spectra, _ = reference_spectra(grid, _N_SIMULATED)
    return _N_SIMULATED, (spectra[begin : begin + _CHUNK] for begin in range(0, _N_SIMULATED, _CHUNK))


def _read(inputs: list[str]) -> "tuple[int, Iterator[list[Spectrum]]]":
    from xlatent.formats.inputs import find
    from xlatent.formats.ogip_response import ResponseReader

    sources, responses = find(inputs), ResponseReader()
    return len(sources), (source.read(responses=responses) for source in sources)


def _print(comparison: "Comparison", a: str, b: str, n: int) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    n_b, n_a = comparison.matrix.shape
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    console.print(f"A = {escape(a)}, B = {escape(b)}, {n} spectra; z_B = M z_A + b, R² of spectra left out of the fit")
    shown = Table(box=None, pad_edge=False, header_style="bold")
    names = ["B", *(f"M z{j}" for j in range(n_a)), "b", "R²", "best match in A", "correlation"]
    for name in names:
        shown.add_column(name, justify="right", no_wrap=True)
    for i in range(n_b):
        match = f"z{comparison.match[i]}" if comparison.match[i] >= 0 else "none"
        numbers = [*comparison.matrix[i], comparison.offset[i]]
        tail = (f"{comparison.r2[i]:.3f}", match, f"{comparison.correlation[i]:+.3f}")
        shown.add_row(f"z{i}", *(f"{value:+.2f}" for value in numbers), *tail)
    console.print(shown)
    console.print("R² of A from B: " + ", ".join(f"z{j} {value:.3f}" for j, value in enumerate(comparison.r2_back)))
