"""The losses: Poisson deviance with the amplitude profiled, divergence from the prior, disagreement within pairs."""

import torch
from jaxtyping import Float
from torch import Tensor


def profiled_amplitude(
    truth: Float[Tensor, "batch chan"],
    shape: Float[Tensor, "batch chan"],
    background: Float[Tensor, "batch chan"],
    iterations: int = 6,
) -> Float[Tensor, "batch 1"]:
    """Find the amplitude a that maximises the Poisson likelihood of ``truth`` under a * shape + background.

    Newton's iteration in ln a, started where totals agree. No gradient flows through it: at the maximum the loss does
    not depend on a.
    """
    with torch.no_grad():
        total = shape.sum(dim=1, keepdim=True)
        a = ((truth - background).sum(dim=1, keepdim=True)).clamp(min=1e-3) / total
        for _ in range(iterations):
            source = a * shape
            mean = source + background
            slope = (source * (1.0 - truth / mean)).sum(dim=1, keepdim=True)
            curvature = (source**2 / mean).sum(dim=1, keepdim=True)
            a = a * torch.exp((-slope / curvature.clamp(min=1e-6)).clamp(-1.0, 1.0))
        return a


def expected_deviance(truth: Float[Tensor, "batch chan"], mean: Float[Tensor, "batch chan"]) -> Float[Tensor, " batch"]:
    """Compute the Poisson deviance of ``mean`` averaged over data drawn from ``truth``, 2 Σ [m - t + t ln(t/m)].

    The Cash statistic (Cash 1979, ApJ 228, 939) in expectation: zero for the right model, without the noise of counts.
    """
    # Where wide channels leave a bin empty, neither expects anything.
    return 2.0 * (mean - truth + truth * torch.log((truth + 1e-20) / (mean + 1e-20))).sum(dim=1)


def divergence(
    mean: Float[Tensor, "batch latents"], factor: Float[Tensor, "batch latents latents"]
) -> Float[Tensor, " batch"]:
    """Compute the Kullback-Leibler divergence of N(mean, factor factorᵀ) from N(0, 1)."""
    variance = (factor**2).sum(dim=2)
    log_diagonal = torch.log(torch.diagonal(factor, dim1=1, dim2=2))
    return 0.5 * (variance + mean**2 - 1.0).sum(dim=1) - log_diagonal.sum(dim=1)


def aggregate_posterior_kl(mean: Float[Tensor, "bright latents"]) -> Float[Tensor, ""]:
    """Compute the divergence from N(0, 1) of a Gaussian with the mean and covariance of many spectra's latents.

    The latents of spectra bright enough to be known must fill all directions of the prior. Judged by the determinant,
    so that one direction of work spread over two axes does not pass for two.
    """
    n, latents = mean.shape
    centred = mean - mean.mean(dim=0)
    covariance = centred.T @ centred / n + 0.01 * torch.eye(latents, device=mean.device)
    trace = torch.diagonal(covariance).sum() + (mean.mean(dim=0) ** 2).sum()
    return 0.5 * (trace - latents - torch.logdet(covariance))


def pair_difference(
    mean: Float[Tensor, "two batch latents"], factor: Float[Tensor, "two batch latents latents"]
) -> Float[Tensor, " batch"]:
    """Compute the squared difference of two views' means over the sum of their variances, summed over latents.

    The variances are detached: views should agree, not doubt themselves into agreement.
    """
    variance = (factor**2).sum(dim=3).detach().sum(dim=0)
    return ((mean[0] - mean[1]) ** 2 / variance).sum(dim=1)


def energy_distance(first: Float[Tensor, "n features"], second: Float[Tensor, "m features"]) -> Float[Tensor, ""]:
    """Compute the energy distance of two samples, 2 E|X - Y| - E|X - X'| - E|Y - Y'|.

    Székely & Rizzo 2013, JSPI 143, 1249.
    Without bias: pairs of a point with itself are left out, so that its gradient is right for samples of any size.
    """
    n, m = len(first), len(second)
    within = torch.cdist(first, first).sum() / (n * (n - 1)) + torch.cdist(second, second).sum() / (m * (m - 1))
    return 2.0 * torch.cdist(first, second).mean() - within
