"""How wrong the decoder of a model is, from simulated spectra whose truth is known."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from xlatent.core.flags import POOR_SIGMA
from xlatent.core.spectrum import Spectrum
from xlatent.infer.decoder_errors import LARGEST, ModelErrors, weight
from xlatent.infer.embed import LatentModel
from xlatent.infer.observation import Observation, encode, prepare
from xlatent.infer.refine import Proposal, RefinedFits, refine

# Enough for what a CCD resolves in broad bands. With more the fit takes up what the flux of a band then lacks.
_SHAPES = 20
_SELDOM = 0.01  # share of known spectra that may be fitted worse than is known
_CHUNK = 64
_TINY = 1e-12  # so that a decoder without errors is none either


def model_errors(
    model: LatentModel, spectra: Sequence[Spectrum], photons: Float[np.ndarray, "n n_energy"]
) -> ModelErrors:
    """Find the decoder's errors in spectra so bright that noise is small beside them.

    Each error is the logarithm of the true over the refined spectrum, weighted as `ModelErrors` has it. Their
    distribution has heavy tails, so that the components are those of errors brought to about one size (a robust
    estimate of shape, after Tyler 1987, Ann. Stat. 15, 234), and the size has a distribution of its own.

    Parameters
    ----------
    model : LatentModel
    spectra : sequence of Spectrum
        Simulated, of 10⁴ counts and more.
    photons : array [n, n_energy]
        Their true spectra, photons cm⁻² s⁻¹ per bin of the model's grid.

    Returns
    -------
    ModelErrors
    """
    found: list[np.ndarray] = []
    for posterior, observations in _fitted(model, spectra, None):
        made = model._decoder.log_flux(posterior.z) + posterior.log_amplitude[:, None]
        for o, log_flux in zip(observations, made, strict=True):
            true = np.log(np.maximum(photons[len(found)], 1e-300))
            found.append(np.clip(true - log_flux, -LARGEST, LARGEST) / weight(np.exp(log_flux) * o.matrix.sum(axis=1)))
    size = np.sum(np.square(found), axis=1) + _TINY
    even = np.array(found) / np.sqrt(size + np.quantile(size, 0.1))[:, None]
    values, vectors = np.linalg.eigh(even.T @ even / len(even))
    shapes = (vectors[:, -_SHAPES:] * np.sqrt(np.maximum(values[-_SHAPES:], 0.0))).T.astype(np.float32)
    low, high = np.log(np.quantile(size, (0.15865, 0.84135)))
    errors = ModelErrors(shapes, float(np.median(size)), float(0.5 * (high - low)), 1.0)
    beyond = np.concatenate(
        [
            (p.statistic - p.expected - POOR_SIGMA * p.sigma) / (p.excess + _TINY)
            for p, _ in _fitted(model, spectra, errors)
        ]
    )
    return replace(errors, largest=max(float(np.quantile(beyond, 1.0 - _SELDOM)), 0.0))


def _fitted(
    model: LatentModel, spectra: Sequence[Spectrum], errors: ModelErrors | None
) -> Iterator[tuple[RefinedFits, list[Observation]]]:
    """Posteriors, as if these were the errors of the model."""
    for begin in range(0, len(spectra), _CHUNK):
        observations = [prepare(s, model.projector) for s in spectra[begin : begin + _CHUNK]]
        proposal = Proposal(observations, *encode(model._encoder, observations, model.info.beta))
        for posterior in refine(model._decoder, [proposal], errors=errors):
            yield posterior, observations
