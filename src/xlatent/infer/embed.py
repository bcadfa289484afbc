"""A loaded model: spectra in, a table of latents or a reconstruction out."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
from jaxtyping import Bool, Float

from xlatent.bundle import DEFAULT_MODEL, BundleInfo, locate, read_info
from xlatent.infer.encode import Observation, encode, prepare
from xlatent.infer.quantities import gaussian_draws, photons, quantities
from xlatent.infer.refine import Decoder, Posterior, refine
from xlatent.latents import LatentTable
from xlatent.spectrum import Spectrum

_CHUNK = 64  # spectra at a time: a native response is about a megabyte
FEW_COUNTS = 5.0
POOR_FIT_SIGMA = 3.0


def load_model(name: str | Path = DEFAULT_MODEL, *, threads: int = 0) -> "LatentModel":
    """Load a bundle, checking its files.

    Parameters
    ----------
    name : str or Path
        Name of a shipped bundle, or a folder.
    threads : int
        Of ONNX Runtime; 0 leaves the choice to it.

    Raises
    ------
    ModelError
        If there is no such bundle, or it is damaged.
    """
    folder = locate(name)
    info = read_info(folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    sessions = [
        onnxruntime.InferenceSession(folder / file, options, providers=["CPUExecutionProvider"])
        for file in ("encoder.onnx", "decoder.onnx")
    ]
    return LatentModel(info, *sessions)


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What the model makes of one spectrum.

    Attributes
    ----------
    channels : array of bool [n_chan]
        The native channels that were compared.
    counts : array [n_selected]
        Expected counts of source and background in them; ``counts_lo`` and ``counts_hi`` bound the 68 % interval.
    background : array [n_selected]
        Expected background counts among them.
    energy : array [n_energy + 1]
        Edges of the intrinsic bins in keV.
    photons : array [n_energy]
        Median photon spectrum, photons cm⁻² s⁻¹ keV⁻¹; ``photons_lo`` and ``photons_hi`` bound the 68 % interval.
    table : LatentTable
        The row of this spectrum.
    """

    channels: Bool[np.ndarray, "n_chan"]
    counts: Float[np.ndarray, "n_selected"]
    counts_lo: Float[np.ndarray, "n_selected"]
    counts_hi: Float[np.ndarray, "n_selected"]
    background: Float[np.ndarray, "n_selected"]
    energy: Float[np.ndarray, "n_edges"]
    photons: Float[np.ndarray, "n_energy"]
    photons_lo: Float[np.ndarray, "n_energy"]
    photons_hi: Float[np.ndarray, "n_energy"]
    table: LatentTable


class LatentModel:
    """A bundle ready for use. Made by `load_model`.

    Parameters
    ----------
    info : BundleInfo
    encoder, decoder : onnxruntime.InferenceSession
    """

    def __init__(
        self, info: BundleInfo, encoder: onnxruntime.InferenceSession, decoder: onnxruntime.InferenceSession
    ) -> None:
        self.info = info
        self.grid = info.model_grid()
        self._encoder = encoder
        self._decoder = Decoder(decoder)

    def __repr__(self) -> str:
        """Name, size and hash."""
        return f"<LatentModel {self.info.name!r}: {self.info.latents} latents, sha256 {self.info.fingerprint[:12]}>"

    def embed(
        self,
        spectra: Spectrum | Iterable[Spectrum],
        *,
        refine: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> LatentTable:
        """Turn spectra into latents with uncertainties.

        Parameters
        ----------
        spectra : Spectrum or iterable of Spectrum
            Each with its response.
        refine : bool
            Maximise the exact posterior from the encoder's proposal on (the default), or keep the proposal.
        progress : callable, optional
            Called with the number of spectra finished since the last call.

        Returns
        -------
        LatentTable
            One row a spectrum, in order.

        Raises
        ------
        ResponseError
            If a spectrum has no usable response.
        """
        listed = [spectra] if isinstance(spectra, Spectrum) else list(spectra)
        parts: list[dict[str, list]] = []
        for begin in range(0, len(listed), _CHUNK):
            chunk = listed[begin : begin + _CHUNK]
            observations = [prepare(s, self.grid) for s in chunk]
            posterior = self._posterior(observations, refine)
            parts.append(self._columns(chunk, observations, posterior, gaussian_draws(posterior)))
            if progress is not None:
                progress(len(chunk))
        joined = {name: [value for part in parts for value in part[name]] for name in (parts[0] if parts else {})}
        meta = {
            "model": self.info.name,
            "model_sha256": self.info.fingerprint,
            "software": f"xlatent {version('xlatent')}",
        }
        return LatentTable(joined, meta)

    def reconstruct(self, spectrum: Spectrum, *, refine: bool = True) -> Reconstruction:
        """Say what the model makes of one spectrum: expected counts, photon spectrum, and the table's row.

        Parameters
        ----------
        spectrum : Spectrum
            With its response.
        refine : bool
            As in `embed`.

        Raises
        ------
        ResponseError
            If the spectrum has no usable response.
        """
        observation = prepare(spectrum, self.grid)
        posterior = self._posterior([observation], refine)
        draws = gaussian_draws(posterior)
        drawn = photons(self._decoder, draws[0])
        background = observation.alpha * observation.mean_off
        counts = np.quantile(drawn @ observation.matrix, (0.15865, 0.84135), axis=0) + background
        best = np.exp(self._decoder.log_flux(posterior.z)[0] + posterior.log_amplitude[0])
        density = np.quantile(drawn, (0.15865, 0.5, 0.84135), axis=0) / self.grid.energy_width
        row = self._columns([spectrum], [observation], posterior, draws)
        return Reconstruction(
            channels=spectrum.select(self.grid.chan_lo, self.grid.chan_hi),
            counts=best @ observation.matrix + background,
            counts_lo=counts[0],
            counts_hi=counts[1],
            background=background,
            energy=self.grid.energy,
            photons=density[1],
            photons_lo=density[0],
            photons_hi=density[2],
            table=LatentTable(row, {"model": self.info.name, "model_sha256": self.info.fingerprint}),
        )

    def _posterior(self, observations: list[Observation], exact: bool) -> Posterior:
        mean, covariance = encode(self._encoder, observations, self.info.beta)
        return refine(self._decoder, observations, mean, covariance, frozen=not (exact and self.info.probabilistic))

    def _columns(
        self, spectra: Sequence[Spectrum], observations: list[Observation], posterior: Posterior, draws: np.ndarray
    ) -> dict[str, list]:
        latents = posterior.z.shape[1]
        columns: dict[str, list] = {
            key: [s.meta.get(key) for s in spectra]
            for key in ("name", "obsid", "obi", "region_id", "ra", "dec", "file")
        }
        for i in range(latents):
            columns[f"z{i}"] = list(posterior.z[:, i])
            columns[f"z{i}_err"] = list(np.sqrt(posterior.covariance[:, i, i]))
            for j in range(i + 1, latents):
                columns[f"z{i}_z{j}_cov"] = list(posterior.covariance[:, i, j])
        known = np.linalg.eigvalsh(posterior.covariance[:, :-1, :-1]) < 0.5
        columns["active"] = list(known.sum(axis=1))
        columns["counts"] = [float(o.n_on.sum()) for o in observations]
        columns["exposure"] = [s.exposure for s in spectra]
        columns["cstat"] = list(posterior.statistic)
        columns["cstat_expected"] = list(posterior.expected)
        columns["cstat_sigma"] = list(posterior.sigma)
        columns |= {name: list(values) for name, values in quantities(self._decoder, draws, self.grid).items()}
        columns["flags"] = [_flags(o, posterior, i) for i, o in enumerate(observations)]
        return columns


def _flags(o: Observation, posterior: Posterior, i: int) -> str:
    flags = []
    if o.n_on.sum() == 0:
        flags.append("no_counts")
    elif o.n_on.sum() < FEW_COUNTS:
        flags.append("few_counts")
    net = o.n_on.sum() - np.sum(o.alpha * o.n_off)
    if o.n_on.sum() and net <= 3.0 * np.sqrt(o.n_on.sum() + np.sum(o.alpha**2 * o.n_off)):
        flags.append("not_significant")
    if not o.has_background:
        flags.append("no_background")
    if posterior.statistic[i] - posterior.expected[i] > POOR_FIT_SIGMA * posterior.sigma[i]:
        flags.append("poor_fit")
    return ",".join(flags)
