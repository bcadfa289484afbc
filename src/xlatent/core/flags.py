"""What a row of the table says of itself: the verdict on its fit, and the flags with their meanings."""

from collections.abc import Iterable
from typing import NamedTuple

POOR_SIGMA = 3.0
"""Standard deviations of the statistic above its expectation from which a fit is poor: of true models, 1 in 700."""
FAILS_SIGMA = 10.0
"""From which the model fails: no number of trials makes that chance."""
FEWEST_COUNTS = 10.0
"""Below which any spectrum fits, so that no verdict is given."""


class Flag(NamedTuple):
    """A flag: what it is called in column ``flags``, what it means, and what to do about it."""

    name: str
    meaning: str
    remedy: str


FLAGS: tuple[Flag, ...] = (
    Flag("no_counts", "no counts in 0.5-8 keV", "limits are upper limits, and latents those of the prior"),
    Flag("few_counts", "fewer than 5 counts in 0.5-8 keV", "look at the errors: little is known beyond the prior"),
    Flag("not_significant", "net counts or flux less than 3 standard deviations above zero", "take limits, not values"),
    Flag("background_dominated", "more than half of the counts in 0.5-8 keV are background",
         "mistrust it where the background is not known to a few per cent"),
    Flag("no_background", "no background spectrum, so that all counts are taken for the source's",
         "give the background, unless the source outshines it"),
    Flag("poor_fit", "the statistic is more than 3 standard deviations above its expectation",
         "look at the residuals with `xlatent show`; latents and fluxes are those of the nearest spectrum known"),
    Flag("known_misfit", "the excess of a `poor_fit` is no more than the decoder leaves on a bright source like this",
         "errors allow for it; do not read features narrower than a band off the photon spectrum"),
    Flag("outlier", "the latents lie where only 1 % of the prior does, or the fit is more than 5 standard deviations "
         "off and more than calibration explains: unlike what the model knows", "leave it out of statistics, or look"),
    Flag("piled_up", "more counts a detector frame than CCDs of this telescope tell apart in a point source",
         "fluxes are too low and spectra too hard: take the wings, or a model of pile-up"),
    Flag("band_not_covered", "a band of the table reaches beyond `energy_lo` to `energy_hi`, where this spectrum has "
         "response and good channels; its fluxes and ratios are missing", "use the other bands"),
    Flag("net_counts", "counts are not whole numbers, or the header says that a background was subtracted "
         "(HDUCLAS2 = NET)", "extract the spectrum again with its background beside it: the statistic needs counts"),
    Flag("no_arf", "an RMF without ARF that does not hold the area itself",
         "give the ARF: fluxes are wrong by the area"),
    Flag("guessed_response", "the header does not name the response it was read with",
         "make sure that it belongs to the spectrum, or give it with --arf and --rmf"),
    Flag("guessed_background", "the header names another background than the one it was read with",
         "make sure that it belongs to the spectrum, or give it with --background"),
    Flag("guessed_channels", "the RMF does not say which channel is its first (TLMIN of F_CHAN)",
         "if lines come out one channel off, set TLMIN"),
    Flag("interpolated_arf", "ARF and RMF have different energy bins", "make both on one grid"),
    Flag("other_telescope", "ARF or RMF is of another telescope than the spectrum", "give its own"),
    Flag("nominal_response", "ACIS's nominal response stands for one that is not known (Multimodal Universe)",
         "expect fluxes to be off by some ten per cent"),
    Flag("grating", "a dispersed spectrum; the model knows CCD spectra only", "do not use the latents"),
    Flag("hrc", "a spectrum of Chandra's HRC, which has hardly any energy resolution", "do not use the latents"),
    Flag("from_fluxes", "latents from band fluxes of a catalogue, without a spectrum", "errors are large; use them"),
    Flag("from_ratios", "latents from hardness ratios of a catalogue, without a spectrum", "there is no brightness"),
    Flag("no_data", "no usable flux or ratio in the catalogue's row", "leave it out: it is the prior"),
    Flag("low_ess", "few effective draws, `ess`", "take its limits for rough ones"),
)  # fmt: skip
"""Every flag that a row may carry."""


def fit_verdict(fit_sigma: float, counts: float) -> str:
    """Judge a fit, in the words of the table and of ``xlatent show``.

    Parameters
    ----------
    fit_sigma : float
        By how many of its standard deviations the statistic exceeds its expectation.
    counts : float
        In 0.5-8 keV, background included.

    Returns
    -------
    str
        ``good``; ``poor`` from `POOR_SIGMA` on; ``fails`` from `FAILS_SIGMA` on; empty below `FEWEST_COUNTS`.

    Examples
    --------
    >>> [fit_verdict(sigma, 400.0) for sigma in (-1.0, 3.5, 48.0)], fit_verdict(0.0, 4.0)
    (['good', 'poor', 'fails'], '')
    """
    if not counts >= FEWEST_COUNTS or fit_sigma != fit_sigma:
        return ""
    if fit_sigma > FAILS_SIGMA:
        return "fails"
    return "poor" if fit_sigma > POOR_SIGMA else "good"


def describe_verdict(fit: str, fit_sigma: float) -> str:
    """Say the verdict of `fit_verdict` in words.

    Examples
    --------
    >>> describe_verdict("poor", 4.7), describe_verdict("", 0.0)
    ('a poor fit, 5 standard deviations off', 'too few counts to judge the fit')
    """
    if not fit:
        return "too few counts to judge the fit"
    if fit == "good":
        return "a good fit" if fit_sigma > -POOR_SIGMA else "a good fit, lower than noise alone should give"
    return ("a poor fit" if fit == "poor" else "the model fails") + f", {fit_sigma:.0f} standard deviations off"


def join_flags(flags: Iterable[str]) -> str:
    """Write flags as column ``flags`` has them: each once, separated by commas.

    Examples
    --------
    >>> join_flags(["few_counts", "no_arf", "few_counts"])
    'few_counts,no_arf'
    """
    return ",".join(dict.fromkeys(flags))
