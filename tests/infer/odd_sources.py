"""Sources unlike any population, and plain ones, as real responses see them: made without `xlatent.simulate`."""

import numpy as np

from xlatent.core.spectrum import Spectrum

KINDS = ("lines", "hard", "pile-up", "hrc")


def observed(rng, response, rate, counts):
    """Poisson counts of a shape, ``counts`` in 0.5-8 keV, over a background of 3 % that is measured tenfold."""
    mid, width = 0.5 * (response.chan_lo + response.chan_hi), response.chan_hi - response.chan_lo
    use = (mid > 0.5) & (mid < 8.0)
    behind = width * (1.0 + 0.5 / np.maximum(mid, 0.2))
    behind *= 0.03 * counts / behind[use].sum()
    off = Spectrum(rng.poisson(10.0 * behind).astype(float), 1e4, backscale=10.0)
    seen = rng.poisson(counts * rate / rate[use].sum() + behind).astype(float)
    return Spectrum(seen, 1e4, background=off, response=response)


def power_law(rng, response, index=(1.4, 2.2)):
    """Count rates of a power law behind a column that absorbs about as E^-2.6."""
    energy = 0.5 * (response.energy_lo + response.energy_hi)
    column = 10.0 ** rng.uniform(-2.0, 0.0)
    density = energy ** -rng.uniform(*index) * np.exp(-0.24 * column * np.minimum(energy**-2.6, 100.0))
    return response.fold(density * (response.energy_hi - response.energy_lo))


def odd(rng, response, kind):
    """Count rates of one source of `KINDS`."""
    energy, mid = 0.5 * (response.energy_lo + response.energy_hi), 0.5 * (response.chan_lo + response.chan_hi)
    inside = (energy > 0.5) & (energy < 8.0)
    if kind == "lines":  # six to fourteen, which hold half to nine tenths of the photons
        photons = energy**-1.7 * (response.energy_hi - response.energy_lo)
        photons /= photons[inside].sum()
        places, strengths = rng.uniform(0.6, 7.5, rng.integers(6, 15)), rng.uniform(0.5, 0.9)
        lines = np.zeros(energy.size)
        np.add.at(lines, np.searchsorted(energy, places), rng.exponential(1.0, places.size))
        return response.fold((1.0 - strengths) * photons + strengths * lines / lines.sum())
    if kind == "hard":  # nothing below 3 keV
        photons = energy ** -rng.uniform(0.0, 1.5) * np.exp(-0.24 * 10.0 ** rng.uniform(2.0, 2.7) * energy**-2.6)
        return response.fold(photons * (energy > 3.0) * (response.energy_hi - response.energy_lo))
    if kind == "pile-up":  # up to three photons a frame are one event of their summed energy
        rate = power_law(rng, response)
        drawn = rng.choice(mid, (20000, 3), p=rate / rate.sum())
        number = np.clip(rng.poisson(rng.uniform(1.0, 3.0), 20000), 1, 3)
        summed = np.where(np.arange(3) < number[:, None], drawn, 0.0).sum(axis=1)
        edges = np.append(response.chan_lo, response.chan_hi[-1])
        return np.convolve(np.histogram(summed, edges)[0] + 1e-3, np.full(5, 0.2), "same")
    centre = rng.uniform(1.2, 4.0)  # HRC's pulse heights, whatever the photons were
    return np.exp(-0.5 * ((mid - centre) / (centre * rng.uniform(0.35, 0.6))) ** 2) + 1e-6
