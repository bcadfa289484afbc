"""The network that stands for the decoder's band fluxes learns what the decoder gives."""

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("torch")

from xlatent.core.bands import flux_weights
from xlatent.core.grid import ModelGrid
from xlatent.model import flux_head

GRID = ModelGrid()


def decode(z):
    """Photons of power laws whose index and cut-off follow two latents."""
    return 1e-3 * np.exp(
        -np.outer(1.7 + 0.3 * z[:, 0], np.log(GRID.energy_mid)) - np.outer(0.1 * z[:, 1], GRID.energy_mid)
    )


def test_it_gives_the_fluxes_of_what_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(flux_head, "_POINTS", 4000)
    monkeypatch.setattr(flux_head, "_STEPS", 300)
    flux_head.export_flux_head(decode, GRID, 2, tmp_path / "fluxes.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "fluxes.onnx", providers=["CPUExecutionProvider"])
    z = 0.5 * np.random.default_rng(1).standard_normal((50, 2))
    found = session.run(["log_fluxes"], {"z": z.astype(np.float32)})[0]
    expected = np.log(decode(z) @ flux_weights(GRID.energy))
    assert np.abs(found - expected).max() < 0.3 and np.abs(found - expected).mean() < 0.1
