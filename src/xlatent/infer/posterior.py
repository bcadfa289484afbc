"""The posterior of one spectrum: draws, moments, density, fluxes in any band and the photon spectrum."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from xlatent.core.bands import BANDS, FLUX_BANDS, column_suffix, energy_flux, photon_flux
from xlatent.core.errors import ParameterError
from xlatent.core.grid import ModelGrid
from xlatent.core.html import html_table
from xlatent.core.latents import LatentTable
from xlatent.core.spectrum_flags import covers
from xlatent.infer.observation import Observation
from xlatent.infer.quantities import Draws, quantiles
from xlatent.infer.refine import (
    AMPLITUDE_WIDTH,
    Decoder,
    RefinedFits,
    amplitude_centre,
    net_counts,
    objective,
    source_counts,
)

# ln(amplitude) is integrated over the width of its prior, and finely where the counts want it; both in their own units.
_PRIOR_REACH, _PRIOR_STEPS = 5.0, 61
_PEAK_REACH, _PEAK_STEPS = 8.0, 41
_DECODED_AT_ONCE = 1024


class Interval(NamedTuple):
    """Median of a quantity and the limits of its central 68 per cent.

    Attributes
    ----------
    value, lolim, hilim : float, or arrays of one shape
        As the columns ``flux_b``, ``flux_b_lolim`` and ``flux_b_hilim`` of a table.
    """

    value: Any
    lolim: Any
    hilim: Any


class Posterior:
    """What the counts of one spectrum say of its latents and its amplitude. Made by `LatentModel.posterior`.

    A Gaussian posterior is a normal distribution at the mode of the exact one; an exact one is draws from it. Both hold
    what errors of the decoder add, as the table does.

    Attributes
    ----------
    kind : str
        ``"gaussian"`` or ``"exact"``.
    table : LatentTable
        The row of this spectrum.
    grid : ModelGrid
        Its ``energy`` [n_energy + 1] are the edges of the bins of `photons`, in keV.

    Examples
    --------
    >>> import numpy as np
    >>> import xlatent as xl
    >>> from xlatent.simulate import acis
    >>> response = acis.response()
    >>> rate = response.fold(1e-3 * response.energy_lo**-1.7 * (response.energy_hi - response.energy_lo))
    >>> spectrum = xl.Spectrum(np.rint(2e4 * rate), 2e4, response=response)
    >>> posterior = xl.load_model().posterior(spectrum)
    >>> posterior.mean.shape, posterior.covariance.shape, posterior.sample(500, seed=1).shape
    ((8,), (8, 8), (500, 8))
    >>> flux = posterior.flux(1.0, 5.0)
    >>> flux.lolim < flux.value < flux.hilim
    True
    """

    def __init__(
        self,
        kind: str,
        table: LatentTable,
        grid: ModelGrid,
        decoder: Decoder,
        observation: Observation,
        fits: RefinedFits,
        draws: Draws,
        exact: Float[np.ndarray, "n_draws latents_1"] | None,
    ) -> None:
        self.kind, self.table, self.grid = kind, table, grid
        self._decoder, self._observation, self._fits, self._exact = decoder, observation, fits, exact
        self._photons = draws.photons(decoder, 0)

    @property
    def name(self) -> str:
        """Name of the spectrum; empty if it has none."""
        return str(self.table.values("name")[0])

    @property
    def mean(self) -> Float[np.ndarray, " latents"]:
        """Mean of z: the mode of a Gaussian posterior, the mean of the draws from an exact one."""
        return self.table.z[0]

    @property
    def covariance(self) -> Float[np.ndarray, "latents latents"]:
        """Covariance of z, with what errors of the decoder add."""
        return self.table.covariance[0]

    @property
    def photons(self) -> Interval:
        """Photon spectrum before the telescope: median and 68 per cent in each bin, photons cm⁻² s⁻¹ keV⁻¹."""
        lolim, median, hilim = quantiles(self._photons) / self.grid.energy_width
        return Interval(median, lolim, hilim)

    def sample(self, n: int = 1000, seed: int | None = None, *, amplitude: bool = False) -> Float[np.ndarray, "n dim"]:
        """Draw z, with errors of the decoder.

        Draws have the mean and the covariance of the posterior. Of an exact posterior a thousand are known; more repeat
        them, each with another error of the decoder.

        Parameters
        ----------
        n : int
        seed : int, optional
            For the same draws again.
        amplitude : bool
            Whether to put ln(amplitude) behind z: that of photons cm⁻² s⁻¹ in 0.5-8 keV, by which `LatentModel.decode`
            is to be multiplied.

        Returns
        -------
        array [n, latents], or [n, latents + 1]

        Raises
        ------
        ParameterError
            If ``n`` is negative.
        """
        if n < 0:
            raise ParameterError(f"a posterior is sampled a number of times, found {n}; give 0 or more")
        rng = np.random.default_rng(seed)
        modes = self._fits.error_modes[0]
        if self._exact is None:
            values, vectors = np.linalg.eigh(self._fits.statistical[0])
            root = vectors * np.sqrt(np.maximum(values, 0.0))
            centre = np.append(self._fits.z[0], self._fits.log_amplitude[0])
            theta = centre + rng.standard_normal((n, len(centre))) @ root.T
        else:
            theta = self._exact[rng.choice(len(self._exact), n, replace=n > len(self._exact))]
        theta = theta + rng.standard_normal((n, modes.shape[1])) @ modes.T
        return theta if amplitude else theta[:, :-1]

    def log_prob(self, z: Float[np.ndarray, "*batch latents"]) -> Float[np.ndarray, " *batch"]:
        """Compute the ln of the posterior density of z.

        Parameters
        ----------
        z : array [..., latents]

        Returns
        -------
        array [...]
            Of a Gaussian posterior, normalised, with errors of the decoder. Of an exact one, up to a constant that is
            the same for all z: likelihood times prior, integrated over the amplitude, of a decoder without errors.

        Raises
        ------
        ParameterError
            If the last axis does not have one value for each latent.
        """
        latents = len(self.mean)
        if z.shape[-1:] != (latents,):
            raise ParameterError(f"z has shape {z.shape}: give {latents} latents along the last axis")
        rows = z.reshape(-1, latents)
        if self._exact is not None:
            return self._exact_log_prob(rows).reshape(z.shape[:-1])
        root = np.linalg.cholesky(self.covariance)
        white = np.linalg.solve(root, (rows - self.mean).T)
        norm = np.log(np.diagonal(root)).sum() + 0.5 * latents * np.log(2.0 * np.pi)
        return (-0.5 * np.sum(white**2, axis=0) - norm).reshape(z.shape[:-1])

    def flux(self, lo: float | int, hi: float | int, *, photons: bool = False) -> Interval:
        """Compute the flux in a band, before the telescope and as absorbed as the source is.

        Parameters
        ----------
        lo, hi : float
            Limits of the band in keV, within 0.5-8 keV.
        photons : bool
            Whether to give the photon flux in photons cm⁻² s⁻¹; the energy flux in erg cm⁻² s⁻¹ otherwise.

        Returns
        -------
        Interval
            Median and 68 per cent. In bands of the table they are the table's. NaN in bands that the spectrum does not
            cover (``energy_lo`` and ``energy_hi`` of the table).

        Raises
        ------
        ParameterError
            If the band is empty or reaches beyond 0.5-8 keV.
        """
        if not self.grid.chan_lo <= lo < hi <= self.grid.chan_hi:
            raise ParameterError(
                f"a flux in {lo:g}-{hi:g} keV is not known: give an ascending band within "
                f"{self.grid.chan_lo:g}-{self.grid.chan_hi:g} keV, where counts were compared"
            )
        for band in FLUX_BANDS:
            if BANDS[band] == (lo, hi):
                name = f"{'photflux' if photons else 'flux'}_{column_suffix(band)}"
                return Interval(*(float(self.table.values(name + end)[0]) for end in ("", "_lolim", "_hilim")))
        covered = float(self.table.values("energy_lo")[0]), float(self.table.values("energy_hi")[0])
        if not covers(covered, (float(lo), float(hi))):
            return Interval(np.nan, np.nan, np.nan)
        integral = photon_flux if photons else energy_flux
        lolim, median, hilim = quantiles(integral(self._photons, self.grid.energy, (float(lo), float(hi)))).tolist()
        return Interval(median, lolim, hilim)

    def _exact_log_prob(self, z: Float[np.ndarray, "n latents"]) -> Float[np.ndarray, " n"]:
        """Integrate the exact density over ln(amplitude) by the trapezium rule, at each z by itself."""
        o, latents = self._observation, z.shape[1]
        prior_mean = np.append(np.zeros(latents), amplitude_centre(self._decoder, [o], latents))
        precision = np.append(np.ones(latents), AMPLITUDE_WIDTH**-2)
        noise = float(np.sum(o.n_on + o.alpha**2 * o.n_off)) + 1.0
        peak = min(noise**0.5 / net_counts(o), AMPLITUDE_WIDTH) * np.linspace(-_PEAK_REACH, _PEAK_REACH, _PEAK_STEPS)
        wide = prior_mean[-1] + AMPLITUDE_WIDTH * np.linspace(-_PRIOR_REACH, _PRIOR_REACH, _PRIOR_STEPS)
        found = np.empty(len(z))
        for begin in range(0, len(z), _DECODED_AT_ONCE):
            for i, log_flux in enumerate(self._decoder.log_flux(z[begin : begin + _DECODED_AT_ONCE]), start=begin):
                # The expected counts are proportional to the amplitude.
                at_one = source_counts(o, np.zeros((1, latents + 1)), log_flux[None])[0]
                nodes = np.sort(np.concatenate([wide, np.log(net_counts(o) / at_one.sum()) + peak]))
                theta = np.column_stack([np.tile(z[i], (len(nodes), 1)), nodes])
                value = -0.5 * objective(o, theta, np.exp(nodes)[:, None] * at_one, prior_mean, precision)
                steps = np.diff(nodes)
                weights = 0.5 * (np.append(steps, 0.0) + np.append(0.0, steps))
                found[i] = logsumexp(value, b=weights)
        return found

    def __repr__(self) -> str:
        """Kind, spectrum, and the flux that the broad band has."""
        flux = self.flux(*BANDS["b"])
        return (
            f"<Posterior of {self.name!r}: {self.kind}, {len(self.mean)} latents, 0.5-7 keV flux {flux.value:.3g} "
            f"({flux.lolim:.3g} to {flux.hilim:.3g}) erg cm-2 s-1>"
        )

    def _repr_html_(self) -> str:
        sigma = np.sqrt(np.diagonal(self.covariance))
        rows = [(f"z{i}", f"{z:.2f} ± {s:.2f}") for i, (z, s) in enumerate(zip(self.mean, sigma, strict=True))]
        return html_table(repr(self)[1:-1], rows)
