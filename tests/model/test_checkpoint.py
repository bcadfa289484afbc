"""Checkpoints and weights that are damaged or of another time end in one sentence."""

import json
import shutil

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from xlatent.core.errors import ModelError  # noqa: E402
from xlatent.core.grid import ModelGrid  # noqa: E402
from xlatent.model import export, train  # noqa: E402
from xlatent.model.autoencoder import Autoencoder  # noqa: E402
from xlatent.model.checkpoint import load  # noqa: E402
from xlatent.model.preset import Network, Training, load_preset  # noqa: E402

NETWORK = Network(patch=16, width=16, layers=1, heads=2, decoder_width=32, decoder_blocks=1)
PRESET = load_preset("paper").model_copy(update={"network": NETWORK, "training": Training(batch=16, warmup_steps=5)})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    train.train(PRESET, folder, steps=1)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def change_state(run, **values):
    path = run / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def without(run, *starts):
    path = run / "checkpoint.safetensors"
    save_file({name: value for name, value in load_file(path).items() if not name.startswith(starts)}, path)


def one_sentence(words, action):
    with pytest.raises(ModelError, match=words) as told:
        action()
    assert "\n" not in str(told.value)


def resume(run):
    return lambda: train.train(PRESET, run, steps=2, resume=True)


def exported(run):
    return lambda: export.export(run, run / "bundle", name="x", training="")


@pytest.mark.parametrize("action", [resume, exported])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "checkpoint.json is damaged: it is no JSON"),
        ("[]", "checkpoint.json is damaged: it does not say preset"),
        ('{"preset": {"name": "paper"}, "elapsed_s": 1.0, "seed": 0}', "does not say step"),
        ('{"preset": {}, "step": 1, "elapsed_s": 1.0, "seed": 0}', "preset has no name"),
    ],
)
def test_a_damaged_description(run, text, words, action):
    (run / "checkpoint.json").write_text(text)
    one_sentence(words, action(run))
    assert not (run / "bundle").exists()


def test_bytes_in_place_of_a_description(run):
    (run / "checkpoint.json").write_bytes(b"\xff\xfe\x00{")
    one_sentence("checkpoint.json is damaged", resume(run))


@pytest.mark.parametrize("action", [resume, exported])
def test_truncated_tensors(run, action):
    path = run / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    one_sentence(r"checkpoint.safetensors is damaged \(.+\); train again", action(run))


def test_missing_tensors(run):
    without(run, "average.decoder.leave")
    one_sentence("another network", resume(run))
    one_sentence("another network", exported(run))
    (run / "checkpoint.safetensors").unlink()
    one_sentence("no checkpoint in", resume(run))
    one_sentence("checkpoint.safetensors is missing", exported(run))


def test_a_missing_optimiser_slot(run):
    without(run, "optimiser.3.exp_avg_sq")
    one_sentence("the optimiser's exp_avg_sq 3 is amiss", resume(run))


def test_a_preset_of_another_time(run):
    preset = PRESET.model_dump()
    preset["training"]["free_bits"] = 0.2
    change_state(run, preset=preset)
    one_sentence("training.free_bits: Extra inputs are not permitted; export it with", exported(run))


def test_weights_to_start_from(run, tmp_path):
    weights = tmp_path / "weights.safetensors"
    one_sentence(
        "weights.safetensors is missing", lambda: train.train(PRESET, tmp_path / "a", steps=1, weights=weights)
    )
    weights.write_bytes(b"not tensors at all")
    one_sentence(
        "weights.safetensors is damaged", lambda: train.train(PRESET, tmp_path / "b", steps=1, weights=weights)
    )
    save_file({"a": torch.zeros(2)}, weights)
    one_sentence("another network", lambda: train.train(PRESET, tmp_path / "c", steps=1, weights=weights))


@pytest.mark.slow
def test_a_run_from_before_there_were_axes_goes_on(run):
    without(run, "model.axes", "average.axes")
    found = load_file(train.train(PRESET, run, steps=2, resume=True))
    assert torch.equal(found["model.axes"], torch.eye(8)) and torch.equal(found["average.axes"], torch.eye(8))
    load(Autoencoder(PRESET, ModelGrid()), {k[8:]: v for k, v in found.items() if k.startswith("average.")}, run)


@pytest.mark.slow
def test_killed_between_its_two_files_a_checkpoint_is_that_of_its_tensors(run, tmp_path):
    older = (run / "checkpoint.json").read_text()
    whole = train.train(PRESET, run, steps=3, resume=True)
    expected = load_file(train.train(PRESET, shutil.copytree(run, tmp_path / "whole"), steps=5, resume=True))
    (run / "checkpoint.json").write_text(older)
    found = load_file(train.train(PRESET, whole.parent, steps=5, resume=True))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.slow
def test_batches_a_step_are_kept(run):
    change_state(run, batches=2)
    without(run)  # and with it the tensors' own word
    one_sentence("run of 2 batches a step, not 3", lambda: train.train(PRESET, run, steps=2, resume=True, batches=3))
    train.train(PRESET, run, steps=2, resume=True)
    assert json.loads((run / "checkpoint.json").read_text())["batches"] == 2
