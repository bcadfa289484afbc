"""Flags of rows that a model made: what the counts allow, how good the fit is, and whether the model knows its like."""

import numpy as np
from scipy.special import chdtri

from xlatent.core.flags import POOR_SIGMA
from xlatent.core.latent_columns import N_LATENTS
from xlatent.infer.observation import Observation
from xlatent.infer.refine import RefinedFits

FEW_COUNTS = 5.0
SIGNIFICANT = 3.0  # standard deviations of the net counts
_OUTLYING = float(chdtri(N_LATENTS, 0.01))  # under the prior |z|² is χ² distributed
# A fit that misses by more than the decoder's errors and area calibrations explain. Areas are known to about 5 %, and
# root mean square errors of that size make an excess of 0.05² of the counts (Drake et al. 2006, SPIE 6270, 62701I).
_MISFIT_SIGMA, _CALIBRATION = 5.0, 0.05


def row_flags(o: Observation, posterior: RefinedFits, i: int, has_prior: bool) -> list[str]:
    """List the flags of one spectrum that follow from its counts and its fit.

    Parameters
    ----------
    o : Observation
    posterior : RefinedFits
        Its fit is that of row ``i``.
    has_prior : bool
        Whether latents have a normal prior, by which to tell an outlier.

    Returns
    -------
    list of str
        Names of `xlatent.core.flags.FLAGS`.
    """
    flags = []
    counts, off = float(o.n_on.sum()), o.alpha * o.n_off
    behind = float(off.sum())
    net, variance = counts - behind, counts + float(o.alpha @ off)
    if counts == 0:
        flags.append("no_counts")
    elif counts < FEW_COUNTS:
        flags.append("few_counts")
    if counts and net <= SIGNIFICANT * variance**0.5:
        flags.append("not_significant")
    if counts and behind > 0.5 * counts:
        flags.append("background_dominated")
    if not o.has_background:
        flags.append("no_background")
    excess, sigma = posterior.statistic[i] - posterior.expected[i], posterior.sigma[i]
    if excess > POOR_SIGMA * sigma:
        flags.append("poor_fit")
        if excess <= POOR_SIGMA * sigma + posterior.excess[i]:
            flags.append("known_misfit")
    misfit = excess > _MISFIT_SIGMA * sigma and excess > _CALIBRATION**2 * net
    if has_prior and (misfit or float(np.sum(posterior.z[i] ** 2)) > _OUTLYING):
        flags.append("outlier")
    return flags
