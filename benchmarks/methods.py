"""What each method says a spectrum's shape is, in source counts on the detector grid, and how far that is from true."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from scipy.special import kl_div

from embedding import CHUNK, flux_limits, loaded, spread
from simulated import EXPOSURE, TestSet
from xlatent.core.grid import ModelGrid
from xlatent.core.spectrum import Spectrum
from xlatent.infer.embed import LatentModel
from xlatent.infer.observation import encode, prepare
from xlatent.simulate import population
from xlatent.simulate.observe import Observatory

TRAINING_SEED = 0
N_TRAINING, N_VALIDATION = 20_000, 1600


# -- what is seen, and the score


@dataclass(frozen=True)
class Seen:
    """``n`` spectra on the detector grid, arrays [n, n_chan].

    ``counts`` drawn; ``off`` the measured background scaled to the source region; ``unit`` the folded reference
    spectrum, of sum one; ``source`` and ``background`` the expected counts that nobody knows but the judge.
    """

    counts: Float[np.ndarray, "n n_chan"]
    off: Float[np.ndarray, "n n_chan"]
    unit: Float[np.ndarray, "n n_chan"]
    source: Float[np.ndarray, "n n_chan"]
    background: Float[np.ndarray, "n n_chan"]

    @property
    def net(self) -> Float[np.ndarray, "n 1"]:
        """Net counts, at least one."""
        return np.maximum((self.counts - self.off).sum(axis=1, keepdims=True), 1.0)


def seen(test: TestSet, grid: ModelGrid) -> Seen:
    """A test set without what the spectra themselves do not tell."""
    counts = np.stack([s.counts for s in test.spectra])
    off = np.stack(
        [s.background.counts * s.background_scale if s.background else np.zeros(grid.n_chan) for s in test.spectra]
    )
    unit = fold(np.broadcast_to(grid.reference, (len(counts), grid.n_energy)), test)
    return Seen(counts, off, unit / unit.sum(axis=1, keepdims=True), test.source, test.background)


def fold(spectra: Float[np.ndarray, "n n_energy"], test: TestSet) -> Float[np.ndarray, "n n_chan"]:
    """Counts that photon spectra [n, n_energy] give, each through the response of its test spectrum."""
    out = np.empty_like(test.source)
    for state in np.unique(test.state):
        rows = np.flatnonzero(test.state == state)
        response = test.spectra[rows[0]].response
        matrix = response.area[:, None] * response.redistribution.toarray() * EXPOSURE
        out[rows] = spectra[rows] @ matrix
    return out


def deviance(shape: Float[np.ndarray, "n n_chan"], view: Seen) -> Float[np.ndarray, " n"]:
    """Expected Poisson deviance of each spectrum against the truth, 2 Σ [m - t + t ln(t/m)] (Cash 1979, ApJ 228, 939).

    The amplitude of every shape is the most likely one for the observed counts on the known expected background, so
    that methods differ by shape only; the sum of the source is kept above half a count.
    """
    total = shape.sum(axis=1, keepdims=True)
    least = np.log(0.5 / total)
    log_a = np.log(np.maximum((view.counts - view.background).sum(axis=1, keepdims=True), 0.5) / total)
    for _ in range(25):
        source = np.exp(log_a) * shape
        mean = source + view.background
        slope = (source * (1.0 - view.counts / mean)).sum(axis=1, keepdims=True)
        curvature = (source**2 / mean).sum(axis=1, keepdims=True)
        log_a = np.maximum(log_a - np.clip(slope / curvature, -1.0, 1.0), least)
    return 2.0 * kl_div(view.source + view.background, np.exp(log_a) * shape + view.background).sum(axis=1)


# -- PCA


@dataclass(frozen=True)
class Normalisation:
    """How a spectrum of mean one is put before PCA: a function, its inverse and its derivative.

    ``divides``: the counts are divided by the folded reference spectrum first, so that the instrument is taken out as
    far as a division can; else PCA sees the counts themselves.
    """

    forward: Callable[[np.ndarray], np.ndarray]
    inverse: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]
    divides: bool = True
    smooth: float = 0.0  # standard deviation in bins


def _log(pseudo: float) -> Normalisation:
    return Normalisation(
        lambda f: np.log(np.maximum(f, 0.0) + pseudo),
        lambda y: np.exp(np.minimum(y, 10.0)) - pseudo,
        lambda f: 1.0 / (f + pseudo),
        smooth=1.5,
    )


def _root(divides: bool) -> Normalisation:
    return Normalisation(
        lambda f: np.sqrt(np.maximum(f, 0.0)),
        lambda y: np.maximum(y, 0.0) ** 2,
        lambda f: 0.5 / np.sqrt(np.maximum(f, FLOOR)),
        divides,
    )


FLOOR = 0.01  # of the flux-like spectrum of mean one: below it no method without a prior knows anything
NORMALISATIONS = {
    "flux": Normalisation(lambda f: f, lambda y: y, np.ones_like),
    "square root of flux": _root(True),
    "square root of counts": _root(False),
    "ln(flux + 0.1)": _log(0.1),
    "ln(flux + 0.3)": _log(0.3),
}
ENCODINGS = ("projection", "weighted", "weighted, shrunk")


class PCA:
    """Principal components of normalised spectra, trained on expected counts: without any noise.

    Parameters
    ----------
    normalisation : str
        Key of `NORMALISATIONS`.
    encoding : str
        ``projection`` on the components; ``weighted``: least squares with the Poisson errors of the expected counts;
        ``weighted, shrunk``: the same with the components' own variances as a prior.
    training : Seen
    components : int
    """

    def __init__(self, normalisation: str, encoding: str, training: Seen, components: int = 8) -> None:
        self.name, self.encoding = normalisation, encoding
        self.how = NORMALISATIONS[normalisation]
        unit = self._unit(training)
        truth = training.source / training.source.sum(axis=1, keepdims=True) / unit
        values = self.how.forward(truth)
        # Bins are weighted by what their Poisson errors are, else the few counts at high energies rule the components.
        self.weight = 1.0 / np.median(np.sqrt(truth / unit) * self.how.slope(truth), axis=0)
        self.weight /= self.weight.max()
        self.mean = values.mean(axis=0)
        weighted = (values - self.mean) * self.weight
        variances, vectors = np.linalg.eigh(weighted.T @ weighted / len(weighted))
        self.variances, self.components = variances[::-1][:components], vectors[:, ::-1][:, :components].T

    def encode(self, view: Seen) -> Float[np.ndarray, "n k"]:
        """Scores on the components."""
        unit, net, smooth = self._unit(view), view.net, self.how.smooth
        found, seen_by = view.counts - view.off, net * unit
        if smooth:
            found, seen_by = (gaussian_filter1d(x, smooth, axis=1, mode="nearest") for x in (found, seen_by))
        difference = self.how.forward(found / seen_by) - self.mean
        if self.encoding == "projection":
            return (difference * self.weight) @ self.components.T
        basis = self.components / self.weight
        prior = np.diag(1.0 / self.variances) if self.encoding == "weighted, shrunk" else 1e-6 * np.eye(len(basis))
        scores = np.zeros((len(net), len(basis)))
        for _ in range(4):  # errors from the fit itself: those from the observed counts would pull it down
            flux = self._flux(scores)
            variance = (flux * unit * net + view.off + 0.1) / (unit * net) ** 2 * self.how.slope(flux) ** 2
            precision = 1.0 / variance
            information = np.einsum("kc,nc,lc->nkl", basis, precision, basis, optimize=True) + prior
            scores = np.linalg.solve(information, ((difference * precision) @ basis.T)[:, :, None])[:, :, 0]
        return scores

    def shapes(self, view: Seen) -> Float[np.ndarray, "n n_chan"]:
        """Expected source counts, of any norm."""
        return self._flux(self.encode(view)) * self._unit(view)

    def _flux(self, scores: np.ndarray) -> np.ndarray:
        return np.maximum(self.how.inverse(self.mean + scores @ self.components / self.weight), FLOOR)

    def _unit(self, view: Seen) -> np.ndarray:
        return view.unit + 1e-6 if self.how.divides else np.full_like(view.unit, 1.0 / view.unit.shape[1])


def training_views(observatory: Observatory, n: int, counts: tuple[float, float], first: int) -> Seen:
    """Sources and responses as training draws them; batches are numbered from ``first``."""
    grid, parts = observatory.grid, []
    for step in range(first, first + n // 400):
        rng = np.random.default_rng([TRAINING_SEED, step])
        spectra = population.spectra(grid.energy, population.draw(rng, 400))
        parts.append(observatory.observe(rng, spectra, np.exp(rng.uniform(*np.log(counts), 400))))
    names = ("counts", "background_counts", "reference_counts", "source", "background")
    joined = [np.concatenate([getattr(p, k) for p in parts]) for k in names]
    joined[2] /= joined[2].sum(axis=1, keepdims=True)
    return Seen(*joined)


def best_pca(grid: ModelGrid, n: int = N_TRAINING) -> tuple[PCA, list[tuple[str, str, float, float]]]:
    """The PCA whose median expected deviance is lowest at 300-3,000 counts, judged by spectra it was not trained on.

    Returns
    -------
    pca : PCA
    tried : list of (normalisation, encoding, median, mean)
        Of all that were tried.
    """
    observatory = Observatory(grid, grid.energy)
    training = training_views(observatory, n, (10, 1e6), 0)
    judged = training_views(observatory, N_VALIDATION, (300, 3000), 100_000)
    tried = []
    for name in NORMALISATIONS:
        for encoding in ENCODINGS:
            pca = PCA(name, encoding, training)
            scores = deviance(pca.shapes(judged), judged)
            tried.append((float(np.median(scores)), float(scores.mean()), pca))
    best = min(tried, key=lambda t: t[0])[2]
    return best, [(pca.name, pca.encoding, median, mean) for median, mean, pca in tried]


# -- networks


def decoded_shapes(model: LatentModel, z: Float[np.ndarray, "n k"], test: TestSet) -> Float[np.ndarray, "n n_chan"]:
    """Expected source counts of a model's latents, as the model was trained to mean them.

    A probabilistic model's photon spectrum is folded; the ``paper`` preset's stands, relative to the reference
    spectrum and averaged into detector bins, for counts over the folded reference spectrum
    (`model.objectives.mse_loss`).
    """
    photons = model.decode(z)
    if model.info.probabilistic:
        return fold(photons, test)
    grid = model.grid
    common = np.minimum(grid.chan[1:], grid.energy[1:, None]) - np.maximum(grid.chan[:-1], grid.energy[:-1, None])
    return (photons / grid.reference) @ (common.clip(0.0) / np.diff(grid.chan)) * seen(test, grid).unit


def embedded(model: str, paper: str | None, spectra: list[Spectrum]) -> dict[str, np.ndarray]:
    """Everything the benchmark asks of the models for each spectrum, computed by a pool of processes.

    Returns
    -------
    dict of arrays [n, ...]
        ``z_amortised``, ``z``, ``covariance``, ``gap`` (statistic amortised - refined), ``pull`` ((statistic -
        expected) / sigma), ``active``, ``flags``, ``limits`` (`flux_limits`), ``z_paper`` (NaN without such a model).
    """
    pieces = [(spectra[i : i + CHUNK],) for i in range(0, len(spectra), CHUNK)]
    names = ("z_amortised", "z", "covariance", "gap", "pull", "active", "flags", "limits", "z_paper")
    return dict(zip(names, spread(_embed, pieces, model, paper, what="Embedding"), strict=True))


def _embed(spectra: list[Spectrum]) -> tuple[np.ndarray, ...]:
    model = loaded["model"]
    observations = [prepare(s, model.projector) for s in spectra]
    amortised, refined = model._posterior(observations, False), model._posterior(observations, True)
    described, draws, ess, _ = model._draw(observations, refined, "gaussian")
    columns = model._columns(spectra, observations, described, draws, ess)
    return (
        amortised.z,
        refined.z,
        refined.covariance[:, :-1, :-1],
        amortised.statistic - refined.statistic,
        (refined.statistic - refined.expected) / refined.sigma,
        np.array(columns["active"]),
        np.array(columns["flags"], dtype=object),
        flux_limits(model._drawn_fluxes(draws, True)),
        encode(loaded["paper"]._encoder, observations)[0] if "paper" in loaded else np.full_like(refined.z, np.nan),
    )
