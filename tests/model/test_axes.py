"""Latents along axes by rule: what turns with a network and what does not."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import onnxruntime  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from xlatent.core.bundle import locate  # noqa: E402
from xlatent.core.grid import ModelGrid  # noqa: E402
from xlatent.model import export, objectives  # noqa: E402
from xlatent.model.autoencoder import Autoencoder  # noqa: E402
from xlatent.model.axes import canonical_axes  # noqa: E402
from xlatent.model.batches import simulated_batches  # noqa: E402
from xlatent.model.checkpoint import load  # noqa: E402
from xlatent.model.preset import Preset, Training, load_preset  # noqa: E402

pytestmark = pytest.mark.slow

GRID = ModelGrid()


@pytest.fixture(scope="module")
def shipped():
    """The shipped network, its preset and the rule's axes for it."""
    folder = locate("chandra-acis-8")
    preset = Preset.model_validate(json.loads((folder / "bundle.json").read_text())["preset"])
    model = Autoencoder(preset, GRID)
    load(model, load_file(folder / "weights.safetensors"), folder)
    return model.eval(), preset, *canonical_axes(model.eval(), preset, GRID)


@pytest.fixture(scope="module")
def bundle(shipped, tmp_path_factory):
    """The shipped network as if it had just been trained, exported."""
    model, preset, _, _ = shipped
    run = tmp_path_factory.mktemp("run")
    weights = {name: value for name, value in model.state_dict().items() if name != "axes"}  # as older runs are
    save_file({f"average.{name}": value for name, value in weights.items()}, run / "checkpoint.safetensors")
    state = {"preset": preset.model_dump(), "step": 1, "elapsed_s": 1.0, "seed": 0}
    (run / "checkpoint.json").write_text(json.dumps(state))
    return export.export(run, run / "bundle", name="turned", training="")


def views(n_batches=1):
    energy = torch.as_tensor(GRID.energy, dtype=torch.float32)
    made = simulated_batches(GRID, Training(batch=64, min_counts=1e3, max_counts=1e5), 5, 0, energy)
    return [next(made) for _ in range(n_batches)]


def encoded(model, seen):
    with torch.no_grad():
        return model.encoder(*seen.encoder_inputs)


def test_axes_are_a_rotation_ordered_by_information(shipped):
    _, _, axes, information = shipped
    torch.testing.assert_close(axes @ axes.T, torch.eye(8), rtol=0, atol=1e-5)
    assert torch.all(information[:-1] >= information[1:]) and information[-1] > 0


def test_every_axis_hardens_the_spectrum(shipped):
    model, _, axes, _ = shipped
    (_, seen), *_ = views()
    mean, _ = encoded(model, seen)
    hard = (GRID.energy_mid > 6.0) & (GRID.energy_mid < 8.0)
    step = 0.05
    with torch.no_grad():
        for axis in axes[:6]:  # the last are so weak that the sign of another set of spectra may differ
            up, down = (torch.exp(model.decoder(mean + way * step * axis))[:, hard].sum(dim=1) for way in (1, -1))
            assert torch.log(up / down).mean() > 0


def test_a_turned_network_has_the_same_axes(shipped):
    # The same network in another frame: what its latents are called must not change.
    model, preset, axes, information = shipped
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(3)))[0]
    other = Autoencoder(preset, GRID)
    other.load_state_dict(model.state_dict())

    class Turned(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.latents = model.encoder, 8

        def forward(self, *inputs):
            mean, factor = self.encoder(*inputs)
            return mean @ turn.T, turn @ factor

    other.encoder = Turned()
    with torch.no_grad():
        other.decoder.enter.weight.copy_(model.decoder.enter.weight @ turn.T)
    found, again = canonical_axes(other.eval(), preset, GRID)
    torch.testing.assert_close(found @ turn, axes, rtol=0, atol=2e-2)
    torch.testing.assert_close(again, information, rtol=1e-3, atol=1e-3)


def test_the_bundle_says_the_same_in_other_words(shipped, bundle):
    model, _, axes, information = shipped
    (_, seen), *_ = views()
    mean, factor = encoded(model, seen)
    inputs = dict(zip(["counts", "background", "unit", "spread", "scale"],
                      seen.encoder_inputs, strict=True))  # fmt: skip
    run = onnxruntime.InferenceSession(bundle / "encoder.onnx", providers=["CPUExecutionProvider"])
    z, root = run.run(None, {name: value.numpy() for name, value in inputs.items()})
    np.testing.assert_allclose(z, mean @ axes.T, atol=1e-3)
    covariance = (axes @ factor @ factor.mT @ axes.T).numpy()
    np.testing.assert_allclose(root @ root.transpose(0, 2, 1), covariance, atol=1e-3)
    decode = onnxruntime.InferenceSession(bundle / "decoder.onnx", providers=["CPUExecutionProvider"])
    with torch.no_grad():
        wanted, slopes = model.decoder.with_slopes(mean, axes)
    log_flux, along = decode.run(None, {"z": z, "directions": np.eye(8, dtype=np.float32)})
    np.testing.assert_allclose(log_flux, wanted, atol=2e-3)
    np.testing.assert_allclose(along, slopes, atol=2e-2)
    recorded = json.loads((bundle / "bundle.json").read_text())["metrics"]["information_nats"]
    np.testing.assert_allclose(recorded, information, atol=0.006)


def test_training_goes_on_from_a_turned_bundle_where_it_was(shipped, bundle):
    model, preset, axes, _ = shipped
    again = Autoencoder(preset, GRID)
    load(again, load_file(bundle / "weights.safetensors"), bundle)
    torch.testing.assert_close(again.axes, axes)
    (photons, seen), *_ = views()
    noise = torch.randn(2 * len(photons), 8, generator=torch.Generator().manual_seed(0))
    losses = [
        objectives.poisson_loss(m, GRID, photons, seen, preset.training, 1.0, noise)[0].detach() for m in (model, again)
    ]
    assert float(losses[0]) == float(losses[1])


def test_points_keep_their_axes():
    preset = load_preset("paper")
    axes, information = canonical_axes(Autoencoder(preset, GRID), preset, GRID)
    assert torch.equal(axes, torch.eye(8)) and information.isnan().all()
