import json
from dataclasses import fields

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from xlatent.core.errors import ModelError, ParameterError  # noqa: E402
from xlatent.core.grid import ModelGrid  # noqa: E402
from xlatent.infer.embed import load_model  # noqa: E402
from xlatent.model import batches, export, objectives, train  # noqa: E402
from xlatent.model.autoencoder import Autoencoder  # noqa: E402
from xlatent.model.preset import Network, Preset, Training, load_preset  # noqa: E402
from xlatent.workflows.simulate import simulate  # noqa: E402


def tiny(name):
    """The preset, small enough to train in a test."""
    preset = load_preset(name)
    network = Network(patch=16, width=16, layers=1, heads=2, decoder_width=32, decoder_blocks=1)
    return preset.model_copy(update={"network": network, "training": Training(batch=16, warmup_steps=5)})


@pytest.mark.slow
def test_the_loss_falls(tmp_path):
    lines = []
    train.train(tiny("response-aware"), tmp_path / "run", steps=200, report=lines.append)
    assert len(lines) == 4
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])["step"] == 50


@pytest.mark.slow
@pytest.mark.parametrize("name", ["response-aware", "paper"])
def test_killed_and_resumed_it_goes_on_where_it_was(tmp_path, monkeypatch, name):
    # A run of 40 steps that is stopped after 20 ends in the same weights as one that is not.
    torch.set_num_threads(1)
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0.0)  # a checkpoint every step
    preset = tiny(name)
    whole = load_file(train.train(preset, tmp_path / "whole", steps=40))

    class StoppedError(Exception):
        pass

    saved = train._save

    def stop_at_twenty(*arguments):
        path = saved(*arguments)
        if arguments[5] == 20:
            raise StoppedError
        return path

    with monkeypatch.context() as patch:
        patch.setattr(train, "_save", stop_at_twenty)
        with pytest.raises(StoppedError):
            train.train(preset, tmp_path / "halves", steps=40)
    assert json.loads((tmp_path / "halves" / "checkpoint.json").read_text())["step"] == 20
    halves = load_file(train.train(preset, tmp_path / "halves", steps=40, resume=True))
    assert json.loads((tmp_path / "halves" / "checkpoint.json").read_text())["step"] == 40
    for key, value in whole.items():
        torch.testing.assert_close(halves[key], value, rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["response-aware", "paper"])
def test_the_exported_bundle_agrees_and_embeds(tmp_path, name):
    preset = tiny(name)
    train.train(preset, tmp_path / "run", steps=5)
    folder = export.export(tmp_path / "run", tmp_path / "bundle", name="tiny", training="five steps")
    model = Autoencoder(preset, ModelGrid())
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    assert export.disagreement(model.eval(), ModelGrid(), folder, n=256) < 1e-4
    from xlatent.formats import ogip_spectrum

    spectra = [ogip_spectrum.read(path) for path in simulate(2, 3, tmp_path / "sim")]
    table = load_model(folder).embed(spectra)
    assert np.isfinite(table.z).all() and np.isfinite(table.z_err).all() and len(table) == 2


def test_a_decoder_that_runs_away_is_called_back():
    # Beyond its bounds a decoded spectrum does not change any more, and no other part of the loss sees it.
    preset, grid = tiny("response-aware"), ModelGrid()
    torch.manual_seed(0)
    model = Autoencoder(preset, grid)
    energy = torch.as_tensor(grid.energy, dtype=torch.float32)
    photons, views = next(batches.simulated_batches(grid, preset.training, 0, 0, energy))

    def beyond():
        return objectives.poisson_loss(model, grid, photons, views, preset.training, 0.4, noise)[1]["beyond"]

    noise = torch.randn(2 * len(photons), 8, generator=torch.Generator().manual_seed(1))
    assert beyond() == 0.0
    with torch.no_grad():
        model.decoder.leave.weight.mul_(1e4)
    far = beyond()
    assert far > 10.0
    far.backward()
    slope = model.decoder.leave.weight.grad
    assert torch.sum(slope * model.decoder.leave.weight) > 0.0  # smaller weights bring it back


def test_mistakes_are_said_in_words(tmp_path):
    preset = tiny("response-aware")
    with pytest.raises(ParameterError, match="either steps or minutes"):
        train.train(preset, tmp_path / "run")
    with pytest.raises(ModelError, match="no checkpoint in"):
        train.train(preset, tmp_path / "run", steps=1, resume=True)
    train.train(preset, tmp_path / "run", steps=1)
    with pytest.raises(ModelError, match="already holds a training run"):
        train.train(preset, tmp_path / "run", steps=1)
    with pytest.raises(ModelError, match="preset 'response-aware', not 'paper'"):
        train.train(tiny("paper"), tmp_path / "run", steps=1, resume=True)
    with pytest.raises(ModelError, match="no preset 'big'; known are paper, response-aware"):
        load_preset("big")
    with pytest.raises(ModelError, match="no training run in"):
        export.export(tmp_path / "absent", tmp_path / "bundle", name="x", training="")
    assert not (tmp_path / "bundle").exists()


def test_a_preset_takes_no_unknown_setting():
    with pytest.raises(ValueError, match="dropout"):
        Preset.model_validate({"name": "x", "inputs": "flux", "loss": "mse", "network": {"dropout": 0.1}})


@pytest.mark.slow
def test_batches_depend_on_seed_and_step_alone():
    grid, training = ModelGrid(), Training(batch=8)
    energy = torch.as_tensor(grid.energy, dtype=torch.float32)
    stream = batches.simulated_batches(grid, training, 7, 0, energy)
    next(stream)
    photons, views = next(stream)
    later_photons, later = next(batches.simulated_batches(grid, training, 7, 1, energy))
    assert torch.equal(photons, later_photons) and torch.equal(views.counts, later.counts)
    assert torch.equal(photons[:8], photons[8:])  # pairs: the same source seen twice
    assert not torch.equal(views.counts[:8], views.counts[8:])


@pytest.mark.slow
def test_batches_made_ahead_by_other_processes_are_the_same_in_the_same_order():
    grid = ModelGrid()
    made = batches.SimulatedBatches(grid, Training(batch=8), 7, torch.as_tensor(grid.energy, dtype=torch.float32))
    cpu = torch.device("cpu")
    ahead, here = (list(batches.prefetch_batches(made, (4, 0, 2), cpu, workers)) for workers in (2, 0))
    for (photons, views), (same_photons, same_views) in zip(ahead, here, strict=True):
        assert torch.equal(photons, same_photons)
        for field in fields(views):
            assert torch.equal(getattr(views, field.name), getattr(same_views, field.name)), field.name
