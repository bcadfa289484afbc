from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special

from xlatent.simulate import continuum

EDGES = np.geomspace(0.3, 10.0, 257)
MODELS = {
    "powerlaw": (continuum.powerlaw, (1.7,)),
    "cutoff_powerlaw": (continuum.cutoff_powerlaw, (1.2, 5.0)),
    "comptonised": (continuum.comptonised, (1.8, 0.3, 20.0)),
    "blackbody": (continuum.blackbody, (0.4,)),
    "disk_blackbody": (continuum.disk_blackbody, (1.0,)),
    "bremsstrahlung": (continuum.bremsstrahlung, (2.0,)),
    "gaussian_line": (continuum.gaussian_line, (2.0, 0.1)),
}


@pytest.mark.parametrize("name", MODELS)
def test_numpy_and_torch_agree(name):
    torch = pytest.importorskip("torch")
    model, parameters = MODELS[name]
    wanted = model(EDGES, *(np.full(3, p) for p in parameters))
    found = model(torch.as_tensor(EDGES), *(torch.full((3,), p, dtype=torch.float64) for p in parameters))
    assert found.shape == (3, 256)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_is_its_rows(name):
    model, parameters = MODELS[name]
    batch = model(EDGES, *(np.array([p, 1.3 * p]) for p in parameters))
    np.testing.assert_allclose(batch[1], model(EDGES, *(1.3 * p for p in parameters)), rtol=1e-12)


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"gaussian_line"}))
def test_coarse_bins_are_sums_of_fine_ones(name):
    model, parameters = MODELS[name]
    fine = model(EDGES, *parameters).reshape(128, 2).sum(axis=1)
    np.testing.assert_allclose(model(EDGES[::2], *parameters), fine, rtol=1e-3)


@given(st.floats(-2.0, 6.0))
def test_power_law_against_quadrature(gamma):
    found = continuum.powerlaw(np.array([0.5, 0.9, 7.0]), gamma)
    wanted = [integrate.quad(lambda e: e**-gamma, *limits)[0] for limits in ((0.5, 0.9), (0.9, 7.0))]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_blackbody_is_plancks():
    # With norm 1 (1 km at 10 kpc) all photons: 1.0344e-3 * 2 zeta(3) kT^3.
    edges = np.geomspace(1e-3, 60.0, 4000)
    total = continuum.blackbody(edges, 0.5).sum()
    assert total == pytest.approx(1.0344e-3 * 2.0 * special.zeta(3) * 0.5**3, rel=1e-4)


def test_disk_against_its_integral():
    def density(energy, kt_in):
        # (8/3) int_0^1 t^(-11/3) B(E, t kT_in) dt
        def ring(t):
            return t ** (-11.0 / 3.0) * 1.0344e-3 * energy**2 / np.expm1(energy / (t * kt_in))

        return 8.0 / 3.0 * integrate.quad(ring, 5e-3, 1.0, limit=400)[0]

    edges = np.array([0.5, 0.505, 1.0, 1.01, 4.0, 4.04])
    found = continuum.disk_blackbody(edges, 1.0)[::2] / np.diff(edges)[::2]
    wanted = [density(e, 1.0) for e in (0.5025, 1.005, 4.02)]
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


# What XSPEC calls each, its order of ours, and values from the ranges that the population draws.
XSPEC = {
    "powerlaw": ("powerlaw", [0], [(-5.0, -0.5, 1.0, 2.0, 5.0)]),
    "cutoff_powerlaw": ("cutoffpl", [0, 1], [(-3.0, -0.5, 1.0, 1.9, 5.0), (1.0, 9.0, 99.0)]),
    "comptonised": ("nthComp", [0, 2, 1], [(1.05, 1.9, 3.0, 5.0), (0.03, 0.3, 3.0), (1.0, 9.0, 99.0)]),
    "blackbody": ("bbodyrad", [0], [(0.03, 0.1, 0.3, 1.0, 3.0)]),
    "disk_blackbody": ("diskbb", [0], [(0.03, 0.1, 0.3, 1.0, 3.0)]),
    "bremsstrahlung": ("bremss", [0], [(0.08, 0.13, 0.14, 0.5, 0.6, 1.0, 3.0, 10.0, 13.0, 14.0, 25.0)]),
}


@pytest.mark.parametrize("redshift", [0.0, 1.0, 6.0])
@pytest.mark.parametrize("name", XSPEC)
def test_continuum_is_xspecs(xspec, name, redshift):
    model, order, values = XSPEC[name]
    edges = EDGES * (1.0 + redshift)
    # XSPEC takes the mean of two edges for a bin: it is asked for bins a thirty-second as wide.
    fine = np.exp(np.interp(np.arange(256 * 32 + 1) / 32, np.arange(257), np.log(edges)))
    for parameters in product(*values):
        # Two of XSPEC's end: bremss at 30 kT, nthComp at 40 kT_e, on coarse points.
        last = {"bremsstrahlung": 28.0, "comptonised": 18.0}.get(name, np.inf) * parameters[-1]
        # nthComp also asks for the kind of seeds and the redshift.
        given = np.pad(np.array(parameters)[order], (0, 2))
        wanted = xspec(model, fine, given).reshape(256, 32).sum(axis=1)
        seen = (wanted > 1e-5 * wanted.max()) & (wanted > 1e-35) & (edges[1:] < last)
        found = getattr(continuum, name)(edges, *parameters)
        np.testing.assert_allclose(found[seen], wanted[seen], rtol=5e-3, err_msg=str(parameters))


@pytest.mark.parametrize("line_energy, sigma", [(0.6, 0.02), (2.0, 0.1), (6.4, 0.02), (6.4, 0.4)])
def test_line_is_xspecs(xspec, line_energy, sigma):
    wanted = xspec("gaussian", EDGES, (line_energy, sigma))
    found = continuum.gaussian_line(EDGES, line_energy, sigma)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * wanted.max())


@pytest.mark.parametrize("name", MODELS)
def test_single_precision_suffices(name):
    model, parameters = MODELS[name]
    single = (np.full(2, p, np.float32) for p in parameters)
    found, wanted = model(EDGES.astype(np.float32), *single), model(EDGES, *parameters)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[1], wanted, rtol=2e-4, atol=1e-6 * wanted.max())


def test_bremsstrahlung_jumps_where_xspecs_does_and_nowhere_else():
    # Within 1 % of 13.58 keV, where XSPEC changes polynomials; between, neighbouring temperatures differ smoothly.
    kt = np.geomspace(5.0, 30.0, 181)
    found = np.log(continuum.bremsstrahlung(np.array([3.0, 3.03]), kt)[:, 0] * np.exp(3.015 / kt) * kt**0.5)
    steps = np.abs(np.diff(found, 2))
    assert np.flatnonzero(steps > 0.004).size <= 2
    assert np.abs(np.log(kt[1:-1][np.argmax(steps)] / 13.58)) < 0.02


@given(st.floats(0.7, 7.0), st.floats(0.005, 0.2))
def test_a_line_keeps_its_photons_and_place(energy, sigma):
    edges = np.linspace(0.0, 10.0, 4001)
    line = continuum.gaussian_line(edges, energy, sigma)
    mid = 0.5 * (edges[1:] + edges[:-1])
    inside = (energy - 5 * sigma > 0) and (energy + 5 * sigma < 10)
    if inside:
        assert line.sum() == pytest.approx(1.0, abs=1e-4)
        assert (line * mid).sum() == pytest.approx(energy, abs=0.003)


def test_redshift_moves_a_cutoff():
    rest = continuum.cutoff_powerlaw(EDGES * 3.0, 1.0, 9.0)
    seen = continuum.cutoff_powerlaw(EDGES, 1.0, 3.0)
    np.testing.assert_allclose(rest / rest.sum(), seen / seen.sum(), rtol=1e-9)
