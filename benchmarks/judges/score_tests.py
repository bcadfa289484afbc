"""Statistics that see what a measure of the whole fit does not: a shift of the gain, and a narrow line."""

import numpy as np
from jaxtyping import Float

from xlatent.core.bands import FIT_BAND
from xlatent.core.spectrum import Spectrum
from xlatent.core.statistics import wstat_background
from xlatent.infer.observation import Observation
from xlatent.infer.refine import AMPLITUDE_WIDTH, RefinedFits

_FEW = 1e-3  # of the largest information that a line has anywhere: with less, nothing is known of one


def gain_and_line(spectrum: Spectrum, observation: Observation, fits: RefinedFits, i: int) -> tuple[float, float]:
    """Compute by how many standard deviations the residuals of a fit ask for another gain, or for a narrow line.

    Score tests (Rao 1948, Math. Proc. Camb. Phil. Soc. 44, 50) for one more parameter beside the latents and the
    amplitude. With n counts seen, m expected of the source and b of the background, and d the derivative of m in the
    parameter, the score is U = Σ d (n - m - b) / (m + b). Latents and amplitude, which follow the parameter where they
    can, are at their mode: to first order, with A the derivative of m in them and C their posterior covariance, U has
    variance dᵀWd - dᵀWA C AᵀWd, where W is the inverse of the variance of n - m - b. Their prior is in C, so that a
    gain is also seen where only an unlikely source would do instead. Edges of the effective area, which no source can
    move, weigh most.

    Parameters
    ----------
    spectrum : Spectrum
    observation : Observation
        The same, prepared.
    fits : RefinedFits
        With the fit of it.
    i : int
        Which of the fits that is.

    Returns
    -------
    gain : float
        Of unit variance where gain and model are right; positive where channels read too high an energy.
    line : float
        The largest of those for a line in each bin of the model's grid; how large chance makes it depends on the
        number of independent bins.
    """
    o, response = observation, spectrum.response
    use = spectrum.select(*FIT_BAND)
    energy = 0.5 * (response.chan_lo + response.chan_hi)[use]
    width = (response.chan_hi - response.chan_lo)[use]
    photons = np.exp(fits.decoded[i].astype(float) + fits.log_amplitude[i])
    source = photons @ o.matrix + 1e-12
    slopes = np.vstack([(photons * fits.jacobian[i]) @ o.matrix, source])
    alpha = o.alpha / o.averaged  # the background as refinement has it, averaged over neighbours
    behind, noise = np.zeros(len(source)), np.zeros(len(source))
    if o.has_background:
        behind = alpha * wstat_background(o.n_on, o.averaged * o.mean_off, source, alpha)
        noise = o.alpha * o.mean_off * (1.0 + alpha)
    # Channels that read g E for E hold the density of counts at E: its derivative in g is -(E rho)'.
    by_gain = -width * np.gradient(energy * source / width, energy)
    changes = np.vstack([by_gain, o.matrix])
    weight = 1.0 / (source + noise)
    score = changes @ (o.n_on / (source + behind) - 1.0)
    prior = np.append(np.ones(len(slopes) - 1), AMPLITUDE_WIDTH**-2)
    followed = slopes @ (weight * changes).T
    curvature = (slopes * weight) @ slopes.T + np.diag(prior)
    variance = (changes**2) @ weight - np.sum(followed * np.linalg.solve(curvature, followed), axis=0)
    normal = score / np.sqrt(np.maximum(variance, _FEW * np.append(0.0, np.full(len(o.matrix), variance[1:].max()))))
    return float(normal[0]), float(normal[1:].max())


def stretched(
    counts: Float[np.ndarray, " n_chan"],
    lo: Float[np.ndarray, " n_chan"],
    hi: Float[np.ndarray, " n_chan"],
    gain: float,
) -> Float[np.ndarray, " n_chan"]:
    """Put counts where a camera has them whose channels read ``gain`` times the energy that they should.

    Parameters
    ----------
    counts : array [n_chan]
        Expected in channels of energies ``lo`` to ``hi``, which are neighbours and ascend.
    lo, hi : array [n_chan]
        keV.
    gain : float
        1 for no change.

    Returns
    -------
    array [n_chan]
        Counts of a channel are spread evenly over it. What is moved out of all channels is lost.
    """
    edges = np.append(lo, hi[-1])
    total = np.append(0.0, np.cumsum(counts))
    return np.diff(np.interp(edges / gain, edges, total))
