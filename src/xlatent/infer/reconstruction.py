"""What a model makes of one spectrum: expected counts beside those that were seen, and the photon spectrum."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from xlatent.core.flags import describe_verdict
from xlatent.core.hooks import implementation
from xlatent.core.html import html_table
from xlatent.core.latents import LatentTable
from xlatent.core.spectrum import Spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Reconstruction:
    """What the model makes of one spectrum. Made by `LatentModel.reconstruct`.

    Attributes
    ----------
    spectrum : Spectrum
        The one that was reconstructed.
    channels : array of bool [n_chan]
        The native channels that were compared.
    counts : array [n_selected]
        Expected counts of source and background in them at the best fit, whose statistic the table has; ``counts_lo``
        and ``counts_hi`` lie by as large a factor beside it as the 68 % interval beside the median.
    background : array [n_selected]
        Expected background counts among them.
    energy : array [n_energy + 1]
        Edges of the intrinsic bins in keV.
    photons : array [n_energy]
        Median photon spectrum, photons cm⁻² s⁻¹ keV⁻¹; ``photons_lo`` and ``photons_hi`` bound the 68 % interval.
    table : LatentTable
        The row of this spectrum.
    """

    spectrum: Spectrum
    channels: Bool[np.ndarray, " n_chan"]
    counts: Float[np.ndarray, " n_selected"]
    counts_lo: Float[np.ndarray, " n_selected"]
    counts_hi: Float[np.ndarray, " n_selected"]
    background: Float[np.ndarray, " n_selected"]
    energy: Float[np.ndarray, " n_edges"]
    photons: Float[np.ndarray, " n_energy"]
    photons_lo: Float[np.ndarray, " n_energy"]
    photons_hi: Float[np.ndarray, " n_energy"]
    table: LatentTable

    def plot(self, fig: "Figure | None" = None) -> "Figure":
        """Plot the spectrum with its reconstruction, residuals, photon spectrum, latents and fluxes.

        Parameters
        ----------
        fig : matplotlib.figure.Figure, optional
            An empty figure to draw in, of about 9.6 by 6.6 inches; a new one if not given.

        Returns
        -------
        matplotlib.figure.Figure
            Neither shown nor written.

        Examples
        --------
        >>> import numpy as np
        >>> import xlatent as xl
        >>> from xlatent.simulate import acis
        >>> response = acis.response()
        >>> rate = response.fold(1e-3 * response.energy_lo**-1.7 * (response.energy_hi - response.energy_lo))
        >>> spectrum = xl.Spectrum(np.rint(2e4 * rate), 2e4, response=response)
        >>> xl.load_model().reconstruct(spectrum).plot()
        <Figure size 960x660 with 5 Axes>
        """
        figure: Figure = implementation("plot_reconstruction")(self, fig)
        return figure

    def _numbers(self) -> dict[str, str]:
        seen = float(self.spectrum.counts[self.channels].sum())
        row = {name: float(self.table.values(name)[0]) for name in ("cstat", "cstat_expected", "cstat_sigma")}
        verdict = describe_verdict(str(self.table.values("fit")[0]), float(self.table.values("fit_sigma")[0]))
        fit = f"{row['cstat']:.1f} ({row['cstat_expected']:.1f} ± {row['cstat_sigma']:.1f} expected): {verdict}"
        return {"channels": str(self.channels.sum()), "counts": f"{seen:g} seen, {self.counts.sum():.1f} expected",
                "statistic": fit, "flags": str(self.table.values("flags")[0]) or "none"}  # fmt: skip

    def __repr__(self) -> str:
        """Name, counts seen and expected, fit statistic, flags."""
        return (
            f"<Reconstruction of {self.spectrum.name!r}: {'; '.join(f'{k} {v}' for k, v in self._numbers().items())}>"
        )

    def _repr_html_(self) -> str:
        return html_table(f"Reconstruction of {self.spectrum.name!r}", self._numbers().items())
