"""Two models compared by their latents of the same spectra, those of files or simulated ones."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from xlatent.core.grid import ModelGrid
    from xlatent.core.spectrum import Spectrum
    from xlatent.infer.compare import Comparison

N_SIMULATED = 512
"""Simulated spectra that models are compared by if no others are given."""

_CHUNK = 32  # spectra at a time: a native response is about a megabyte


@dataclass(frozen=True, eq=False)
class ModelComparison:
    """How the latents of model B follow from those of model A.

    Attributes
    ----------
    a, b : str
        Names of the models.
    n_spectra : int
        Spectra embedded with both.
    fit : Comparison
    """

    a: str
    b: str
    n_spectra: int
    fit: "Comparison"


def compare_models(
    a: str | Path,
    b: str | Path,
    inputs: Sequence[str | Path] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> ModelComparison:
    """Embed the same spectra with two models and fit the latents of one by those of the other.

    Parameters
    ----------
    a, b : str or Path
        Names or folders of models.
    inputs : sequence of str or Path, optional
        PHA files, folders, patterns or manifests (CSV) of 50 or more spectra, in place of 512 simulated ones of 1,000
        to 100,000 counts.
    progress : callable, optional
        Called with the files, or simulated spectra, done and their number.

    Returns
    -------
    ModelComparison

    Raises
    ------
    ModelError
        If there is no such model, or it is damaged.
    ReadError, ResponseError
        If a file cannot be read, or a spectrum has no response.
    ParameterError
        If there are fewer than 50 spectra.
    """
    from xlatent.infer.compare import compare
    from xlatent.infer.embed import load_model

    models = [load_model(name, threads=1) for name in (a, b)]
    total, chunks = _read(inputs) if inputs else _simulated(models[0].grid)
    found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    done = 0
    for n_done, spectra in chunks:
        for model, rows in zip(models, found, strict=True):
            rows.append(model.embed(spectra).z)
        done += n_done
        if progress is not None:
            progress(done, total)
    z_a, z_b = (np.concatenate(rows) for rows in found)
    return ModelComparison(models[0].info.name, models[1].info.name, len(z_a), compare(z_a, z_b))


def _simulated(grid: "ModelGrid") -> "tuple[int, Iterator[tuple[int, list[Spectrum]]]]":
    from xlatent.simulate.reference import reference_spectra

    spectra, _ = reference_spectra(grid, N_SIMULATED)
    return N_SIMULATED, ((_CHUNK, spectra[begin : begin + _CHUNK]) for begin in range(0, N_SIMULATED, _CHUNK))


def _read(inputs: Sequence[str | Path]) -> "tuple[int, Iterator[tuple[int, list[Spectrum]]]]":
    from xlatent.formats.inputs import find
    from xlatent.formats.ogip_response import ResponseReader

    sources, responses = find(inputs), ResponseReader()
    return len(sources), ((1, source.read(responses=responses)) for source in sources)
