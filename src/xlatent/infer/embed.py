"""A loaded model: spectra in, a table of latents, a posterior or a reconstruction out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from jaxtyping import Float

from xlatent.core.batches import DRAWN, GROUP, TOGETHER
from xlatent.core.bundle import DEFAULT_MODEL, BundleInfo, locate, read_info
from xlatent.core.errors import ParameterError
from xlatent.core.flags import fit_verdict, join_flags
from xlatent.core.hooks import implementation
from xlatent.core.html import html_table
from xlatent.core.latents import LatentTable
from xlatent.core.projection import Projector
from xlatent.core.spectrum import Spectrum
from xlatent.core.spectrum_flags import covered_band, spectrum_flags
from xlatent.core.version import SOFTWARE
from xlatent.infer.decoder_errors import FILE, ModelErrors
from xlatent.infer.flags import row_flags
from xlatent.infer.observation import Observation, encode, prepare
from xlatent.infer.posterior import Posterior
from xlatent.infer.proposal import PROPOSAL
from xlatent.infer.quantities import Draws, drawn_fluxes, posterior_draws, quantiles, quantities, uncovered
from xlatent.infer.reconstruction import Reconstruction
from xlatent.infer.refine import Decoder, Proposal, RefinedFits, refine
from xlatent.infer.sample import FEW_DRAWS, sample, with_moments_of

if TYPE_CHECKING:
    from xlatent.infer.photometry_sampler import PriorSampler

# Columns of the table that the spectrum brings along.
_FROM_META = (
    *("name", "obsid", "obi", "region_id", "ra", "dec", "file"),
    *("source", "object", "telescope", "instrument", "mjd"),
)
FLUXES = "fluxes.onnx"
_DECODED_AT_ONCE = 1024


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

    Examples
    --------
    >>> import xlatent as xl
    >>> xl.load_model("paper-8").info.latents
    8
    """
    folder = locate(name)
    info = read_info(folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads

    def session(file: str) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(folder / file, options, providers=["CPUExecutionProvider"])

    errors = ModelErrors.load(folder / FILE) if FILE in info.files else None
    fluxes, proposal = (session(file) if file in info.files else None for file in (FLUXES, PROPOSAL))
    return LatentModel(info, session("encoder.onnx"), session("decoder.onnx"), errors, fluxes, proposal)


class LatentModel:
    """A bundle ready for use. Made by `load_model`.

    Parameters
    ----------
    info : BundleInfo
    encoder, decoder : onnxruntime.InferenceSession
    errors : ModelErrors, optional
        Of the decoder, where they are known.
    fluxes : onnxruntime.InferenceSession, optional
        Of ``fluxes.onnx``; without it draws are decoded for their fluxes.
    proposal : onnxruntime.InferenceSession, optional
        Of ``proposal.onnx``; without it draws from exact posteriors take longer.

    Attributes
    ----------
    info : BundleInfo
    errors : ModelErrors or None
    grid : ModelGrid
        Energies of photon spectra (``grid.energy``) and of counts.
    projector : Projector
        Keeps responses on the grid for spectra that share them; threads may share a model.
    """

    def __init__(
        self,
        info: BundleInfo,
        encoder: onnxruntime.InferenceSession,
        decoder: onnxruntime.InferenceSession,
        errors: ModelErrors | None = None,
        fluxes: onnxruntime.InferenceSession | None = None,
        proposal: onnxruntime.InferenceSession | None = None,
    ) -> None:
        self.info = info
        self.errors = errors
        self.grid = info.model_grid()
        self.projector = Projector(self.grid)
        self._encoder = encoder
        self._decoder = Decoder(decoder)
        self._fluxes = fluxes
        self._proposal = proposal

    def __repr__(self) -> str:
        """Name, size and hash."""
        return f"<LatentModel {self.info.name!r}: {self.info.latents} latents, sha256 {self.info.fingerprint[:12]}>"

    def _repr_html_(self) -> str:
        info, grid = self.info, self.grid
        rows = {
            "version": info.version,
            "latents": info.latents,
            "photon spectrum": f"{grid.n_energy} bins, {grid.energy_lo:g}-{grid.energy_hi:g} keV",
            "counts": f"{grid.chan_lo:g}-{grid.chan_hi:g} keV",
            "sha256": info.fingerprint[:12],
            "licence": info.licence,
        }
        return html_table(f"LatentModel {info.name!r}", rows.items())

    def embed(
        self,
        spectra: Spectrum | str | Path | Iterable[Spectrum | str | Path],
        *,
        refine: bool = True,
        posterior: str = "gaussian",
        progress: Callable[[int], None] | None = None,
    ) -> LatentTable:
        """Turn spectra into latents with uncertainties.

        Parameters
        ----------
        spectra : Spectrum, str or Path, or iterable of either
            Spectra with their responses, or what `xlatent.read_all` takes: files, folders, patterns, manifests.
        refine : bool
            Maximise the exact posterior from the encoder's proposal on (the default), or keep the proposal.
        posterior : str
            ``"gaussian"``: mode and covariance of a normal distribution, limits of quantities from draws with heavier
            tails. ``"exact"``: draws from the posterior itself, in tens of milliseconds a spectrum where the model has
            a learnt proposal, and several times as long without; latents and their covariance are those of the draws.
            Where these are few, the flag ``low_ess`` says so.
        progress : callable, optional
            Called with the number of spectra finished since the last call.

        Returns
        -------
        LatentTable
            One row a spectrum, in order.

        Raises
        ------
        ParameterError
            If the posterior is neither, or is to be exact where there is none: not refined, or of a model of points; or
            spectra and paths are mixed.
        ReadError
            If a file cannot be read.
        ResponseError
            If a spectrum has no usable response.

        Examples
        --------
        >>> import xlatent as xl
        >>> from importlib.resources import files
        >>> table = xl.load_model().embed(str(files("xlatent") / "sample" / "*.pha*"))
        >>> table.z.shape
        (6, 8)
        """
        self.info.check_posterior(posterior, refine)
        listed = _spectra_of(spectra)
        size, group = (DRAWN, DRAWN) if posterior == "exact" else (TOGETHER, GROUP)
        parts: list[dict[str, np.ndarray]] = []
        for begin in range(0, len(listed), size):
            order = [begin + i for i in _by_response(listed[begin : begin + size])]
            groups = [[listed[i] for i in order[k : k + group]] for k in range(0, len(order), group)]
            observed = [[prepare(s, self.projector) for s in some] for some in groups]
            made = [
                self._columns(some, observations, *self._draw(observations, fitted, posterior)[:3])
                for some, observations, fitted in zip(groups, observed, self._posteriors(observed, refine), strict=True)
            ]
            back = np.argsort(order)
            parts.append({name: np.concatenate([part[name] for part in made])[back] for name in made[0]})
            if progress is not None:
                progress(len(order))
        joined = {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else {})}
        return LatentTable(joined, self._origin)

    def decode(self, z: Float[np.ndarray, "*batch latents"]) -> Float[np.ndarray, "*batch n_energy"]:
        """Turn latents into photon spectra.

        Parameters
        ----------
        z : array [..., latents]

        Returns
        -------
        array [..., n_energy]
            Photons cm⁻² s⁻¹ in each intrinsic bin of ``grid`` (edges ``grid.energy``, keV) at unit amplitude, which is
            about one photon cm⁻² s⁻¹ in 0.5-8 keV, as the decoder gives it. Divide by ``grid.energy_width`` for
            photons per keV.

        Raises
        ------
        ParameterError
            If the last axis does not have one value for each latent.

        Examples
        --------
        >>> import numpy as np
        >>> import xlatent as xl
        >>> model = xl.load_model()
        >>> model.decode(np.zeros((3, 8))).shape
        (3, 256)
        """
        if z.shape[-1:] != (self.info.latents,):
            raise ParameterError(
                f"latents of shape {z.shape} cannot be decoded by {self.info.name}: "
                f"give {self.info.latents} numbers along the last axis"
            )
        rows = z.reshape(-1, self.info.latents)
        photons = np.empty((len(rows), self.grid.n_energy))
        for begin in range(0, len(rows), _DECODED_AT_ONCE):
            some = slice(begin, begin + _DECODED_AT_ONCE)
            photons[some] = np.exp(self._decoder.log_flux(rows[some]))
        return photons.reshape(*z.shape[:-1], self.grid.n_energy)

    def reconstruct(self, spectrum: Spectrum, *, refine: bool = True, posterior: str = "gaussian") -> Reconstruction:
        """Reconstruct one spectrum: expected counts, photon spectrum, and the table's row.

        Parameters
        ----------
        spectrum : Spectrum
            With its response.
        refine, posterior
            As in `embed`.

        Returns
        -------
        Reconstruction

        Raises
        ------
        ParameterError, ResponseError
            As in `embed`.

        Examples
        --------
        >>> import xlatent as xl
        >>> from importlib.resources import files
        >>> [spectrum, *_] = xl.read_all(str(files("xlatent") / "sample" / "*.pha*"))
        >>> xl.load_model().reconstruct(spectrum).photons.shape
        (256,)
        """
        self.info.check_posterior(posterior, refine)
        observation = prepare(spectrum, self.projector)
        fitted = self._posterior([observation], refine)
        described, draws, ess, _ = self._draw([observation], fitted, posterior)
        drawn = draws.photons(self._decoder, 0)
        background = observation.alpha * observation.mean_off
        best = np.exp(self._decoder.log_flux(fitted.z)[0] + fitted.log_amplitude[0]) @ observation.matrix
        lolim, median, hilim = quantiles(drawn @ observation.matrix)
        # Skewed draws have their median beside the best fit, of which statistic and residuals are: the band follows it.
        beside = np.divide(best, median, out=np.ones_like(best), where=median > 0)
        density = quantiles(drawn) / self.grid.energy_width
        row = self._columns([spectrum], [observation], described, draws, ess)
        return Reconstruction(
            spectrum=spectrum,
            channels=spectrum.select(self.grid.chan_lo, self.grid.chan_hi),
            counts=best + background,
            counts_lo=lolim * beside + background,
            counts_hi=hilim * beside + background,
            background=background,
            energy=self.grid.energy,
            photons=density[1],
            photons_lo=density[0],
            photons_hi=density[2],
            table=LatentTable(row, self._origin),
        )

    @cached_property
    def photometry_sampler(self) -> "PriorSampler":
        """Draws of the prior with their band fluxes, made for the first catalogue and kept for the next."""
        from xlatent.infer.photometry_sampler import PriorSampler

        return PriorSampler(self._decoder, self.grid, self.info.latents)

    def posterior(self, spectrum: Spectrum, kind: str = "gaussian", *, refine: bool = True) -> Posterior:
        """Find the posterior of one spectrum's latents and amplitude.

        Parameters
        ----------
        spectrum : Spectrum
            With its response.
        kind : str
            ``"gaussian"`` or ``"exact"``, as ``posterior`` of `embed`.
        refine : bool
            As in `embed`.

        Returns
        -------
        Posterior
            To draw from, and with fluxes in any band. Its numbers are those of the table that `embed` makes.

        Raises
        ------
        ParameterError, ResponseError
            As in `embed`; also if the latents of the model are points.

        Examples
        --------
        >>> import xlatent as xl
        >>> from importlib.resources import files
        >>> [spectrum, *_] = xl.read_all(str(files("xlatent") / "sample" / "*.pha*"))
        >>> xl.load_model().posterior(spectrum).sample(200, seed=0).shape
        (200, 8)
        """
        self.info.check_posterior(kind, refine)
        if not self.info.probabilistic:
            raise ParameterError(f"the latents of model {self.info.name!r} are points without a posterior to draw from")
        observation = prepare(spectrum, self.projector)
        fitted = self._posterior([observation], refine)
        described, draws, ess, exact = self._draw([observation], fitted, kind)
        table = LatentTable(self._columns([spectrum], [observation], described, draws, ess), self._origin)
        known = None if exact is None else exact[0]
        return Posterior(kind, table, self.grid, self._decoder, observation, described, draws, known)

    @property
    def _origin(self) -> dict[str, str]:
        """What a table says of where it comes from."""
        return {"model": self.info.name, "model_sha256": self.info.fingerprint, "software": SOFTWARE}

    def _draw(
        self, observations: list[Observation], fitted: RefinedFits, kind: str
    ) -> tuple[RefinedFits, Draws, np.ndarray, np.ndarray | None]:
        """Posterior, draws from it with errors of the decoder, their effective number, and without errors.

        The number is NaN, and there are none without errors, where the posterior is taken for a Gaussian.
        """
        if kind == "gaussian":
            return fitted, posterior_draws(fitted), np.full(len(observations), np.nan), None
        exact, ess = sample(self._decoder, observations, fitted, learnt=self._proposal)
        fitted = with_moments_of(fitted, exact)
        return fitted, posterior_draws(fitted, exact=exact), ess, exact

    def _drawn_fluxes(self, draws: Draws, gaussian: bool) -> Float[np.ndarray, "n n_draws n_fluxes"]:
        """Band fluxes of draws, quickly where a normal distribution is close enough to the posterior anyway."""
        return drawn_fluxes(self._decoder, draws, self.grid, self._fluxes if gaussian else None)

    def _posteriors(self, observed: Sequence[list[Observation]], exact: bool) -> Iterator[RefinedFits]:
        proposals = [Proposal(group, *encode(self._encoder, group, self.info.beta)) for group in observed]
        frozen = not (exact and self.info.probabilistic)
        return refine(self._decoder, proposals, frozen=frozen, errors=self.errors)

    def _posterior(self, observations: list[Observation], exact: bool) -> RefinedFits:
        [posterior] = self._posteriors([observations], exact)
        return posterior

    def _columns(
        self,
        spectra: Sequence[Spectrum],
        observations: list[Observation],
        posterior: RefinedFits,
        draws: Draws,
        ess: np.ndarray,
    ) -> dict[str, np.ndarray]:
        latents, covariance = posterior.z.shape[1], posterior.covariance
        columns = {key: np.array([s.meta.get(key) for s in spectra], dtype=object) for key in _FROM_META}
        for i in range(latents):
            columns[f"z{i}"] = posterior.z[:, i]
            columns[f"z{i}_err"] = np.sqrt(covariance[:, i, i])
            for j in range(i + 1, latents):
                columns[f"z{i}_z{j}_cov"] = covariance[:, i, j]
        known = np.linalg.eigvalsh(covariance[:, :-1, :-1]) < 0.5
        columns["active"] = known.sum(axis=1)
        columns["ess"] = ess
        columns["counts"] = np.array([o.n_on.sum() for o in observations])
        columns["exposure"] = np.array([s.exposure for s in spectra])
        columns["cstat"] = posterior.statistic
        columns["cstat_expected"] = posterior.expected
        columns["cstat_sigma"] = posterior.sigma
        columns["fit_sigma"] = (posterior.statistic - posterior.expected) / posterior.sigma
        fits = zip(columns["fit_sigma"], columns["counts"], strict=True)
        columns["fit"] = np.array([fit_verdict(sigma, counts) for sigma, counts in fits], dtype=object)
        columns |= quantities(self._drawn_fluxes(draws, bool(np.isnan(ess).all())))
        covered = [covered_band(s) for s in spectra]
        columns["energy_lo"], columns["energy_hi"] = np.array(covered).T
        flags = []
        for i, (spectrum, observation) in enumerate(zip(spectra, observations, strict=True)):
            raised = [*row_flags(observation, posterior, i, self.info.probabilistic), *spectrum_flags(spectrum)]
            if ess[i] < FEW_DRAWS:
                raised.append("low_ess")
            if missing := uncovered(covered[i]):
                raised.append("band_not_covered")
                for name in missing:
                    columns[name][i] = np.nan
            flags.append(join_flags(raised))
        return columns | {"flags": np.array(flags, dtype=object)}


def _spectra_of(given: Spectrum | str | Path | Iterable[Spectrum | str | Path]) -> list[Spectrum]:
    """Spectra as given, or those of the files that were."""
    listed = [given] if isinstance(given, Spectrum | str | Path) else list(given)
    spectra = [one for one in listed if isinstance(one, Spectrum)]
    if len(spectra) == len(listed):
        return spectra
    if spectra or not all(isinstance(one, str | Path) for one in listed):
        kinds = ", ".join(sorted({type(one).__name__ for one in listed}))
        raise ParameterError(f"either spectra or paths are embedded in one call, found {kinds}; read the files first")
    read: list[Spectrum] = implementation("read_all")(listed)
    return read


def _by_response(spectra: Sequence[Spectrum]) -> list[int]:
    """Order in which those with the same response, which go through it together, are neighbours."""
    first: dict[int, int] = {}
    return sorted(range(len(spectra)), key=lambda i: first.setdefault(id(spectra[i].response), i))
