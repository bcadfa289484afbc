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
    "comptonised": (continuum.comptonised, (1.8, 0.1, 20.0)),
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
    np.testing.assert_allclose(found, wanted, rtol=5e-3)


def test_bessel_function():
    y = np.geomspace(1e-3, 50.0, 300)
    np.testing.assert_allclose(continuum._scaled_bessel_k0(y), special.k0e(y), rtol=1e-6)


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
