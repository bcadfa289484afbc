import functools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from xlatent.cli.main import app  # noqa: E402
from xlatent.core.errors import ModelError, ParameterError  # noqa: E402
from xlatent.core.grid import ModelGrid  # noqa: E402
from xlatent.core.projection import Projector  # noqa: E402
from xlatent.core.spectrum import Spectrum  # noqa: E402
from xlatent.formats.store import open_store, write  # noqa: E402
from xlatent.model import batches, observed, train  # noqa: E402
from xlatent.model.autoencoder import Autoencoder  # noqa: E402
from xlatent.model.observed import Observed, compare_scores, exclusion_reason, split_counts  # noqa: E402
from xlatent.model.preset import Network, Training, load_preset  # noqa: E402
from xlatent.simulate.observe import Observatory  # noqa: E402
from xlatent.simulate.reference import reference_spectra  # noqa: E402

GRID = ModelGrid()
CPU = torch.device("cpu")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def spectra():
    """Sixty-four simulated detections, bright, and their true photons."""
    return reference_spectra(GRID, 64, (2.0, 4.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, spectra):
    path = tmp_path_factory.mktemp("stores") / "store"
    split = ["validation" if i % 4 == 3 else "test" if i % 8 == 0 else "train" for i in range(64)]
    write(spectra[0], path, {"split": split, "source": [f"s{i}" for i in range(64)]})
    return path


@pytest.fixture(scope="module")
def data(folder):
    return Observed(folder, GRID)


def tiny():
    preset = load_preset("response-aware")
    network = Network(patch=16, width=16, layers=1, heads=2, decoder_width=32, decoder_blocks=1)
    return preset.model_copy(update={"network": network, "training": Training(batch=16, warmup_steps=5)})


class Oracle(Autoencoder):
    """Knows the spectra it is going to be asked for, or distorted ones."""

    def __init__(self, photons):
        super().__init__(tiny(), GRID)
        log_flux = torch.as_tensor(np.log(photons), dtype=torch.float32)
        self.decoder.forward = lambda z: log_flux


@pytest.fixture(autouse=True)
def one_observatory(monkeypatch):
    """Its making takes seconds, and it is always the same one."""
    monkeypatch.setattr(batches, "Observatory", lambda grid, energy: observatory())


@functools.cache
def observatory():
    return Observatory(GRID, torch.as_tensor(GRID.energy, dtype=torch.float32))


# -- what is used, and in what order


def test_each_spectrum_comes_once_an_epoch_in_an_order_of_seed_and_epoch(data, spectra):
    n = len(data.train)
    assert n == 40 and len(data.validation) == 16
    whole = data.batch(5, 0, n, CPU).counts
    own = np.stack([GRID.rebin_counts(spectra[0][i].counts, s.response, np.ones(GRID.n_chan, bool))
                    for i, s in enumerate(spectra[0]) if i in data.train])  # fmt: skip
    assert sorted(map(tuple, whole.numpy().tolist())) == sorted(map(tuple, own.tolist()))
    parts = torch.cat([data.batch(5, step, 10, CPU).counts for step in range(4)])
    assert torch.equal(parts, whole)
    again, other = data.batch(5, 1, n, CPU).counts, data.batch(6, 0, n, CPU).counts
    assert torch.equal(again.sort(dim=0).values, whole.sort(dim=0).values)
    assert not torch.equal(again, whole) and not torch.equal(other, whole)


def test_what_the_model_is_given_is_what_inference_gives_it(data, spectra):
    from xlatent.infer.observation import prepare

    views, projector = data._views(spectra[0][:8], CPU), Projector(GRID)
    for i, spectrum in enumerate(spectra[0][:8]):
        o = prepare(spectrum, projector)
        for name, found in {
            "counts": views.counts,
            "background": views.background_counts,
            "spread": views.energy_spread,
        }.items():
            np.testing.assert_allclose(found[i].numpy(), o.features[name], rtol=1e-4, atol=1e-5)
        expected = np.bincount(o.bins, o.alpha * o.mean_off, GRID.n_chan + 1)[1:]
        np.testing.assert_allclose(views.background[i].numpy(), expected, rtol=1e-5)
        share = views.reference_counts[i].numpy() / views.reference_counts[i].numpy().sum()
        np.testing.assert_allclose(share, o.features["unit"] / o.features["unit"].sum(), rtol=1e-4)
        folded = views.fold(torch.as_tensor(np.tile(GRID.reference, (8, 1)), dtype=torch.float32))[i].numpy()
        np.testing.assert_allclose(folded * spectrum.exposure, GRID.reference @ o.matrix, rtol=1e-3)


def test_an_areascale_of_each_channel_acts_as_exposure_does(data, spectra):
    spectrum = spectra[0][0]
    column = np.where(np.arange(GRID.n_chan) < 64, 1.0, 0.25)
    plain, scaled = (data._views([s], CPU).matrix[0].numpy() for s in (spectrum, replace(spectrum, areascale=column)))
    np.testing.assert_allclose(scaled, plain * column, rtol=1e-5)


def test_what_is_of_no_use_is_passed_over_and_counted(tmp_path, spectra):
    good = list(spectra[0][:12])
    own = good[0].response
    odd = [
        replace(good[0], response=None),
        replace(good[0], counts=0.0 * good[0].counts),
        replace(good[0], counts=good[0].counts + 0.5),
        replace(good[0], response=replace(own, energy_lo=10 * own.energy_lo, energy_hi=10 * own.energy_hi)),
        replace(good[0], response=replace(own, area=np.zeros(GRID.n_energy))),
    ]  # fmt: skip
    assert [exclusion_reason(s, GRID) is None for s in (*good, *odd)] == [True] * 12 + [False] * 5
    write([*good, *odd], tmp_path / "s", {"split": ["train"] * 6 + ["validation"] * 6 + ["train"] * 5})
    found = Observed(tmp_path / "s", GRID)
    assert found.train.tolist() == list(range(6)) and found.passed_over.total() == 5
    assert "2 whose response does not cover 0.5-8 keV" in found.reasons and "1 without response" in found.reasons
    batch = found.batch(0, 0, 6, CPU)
    assert torch.isfinite(batch.counts).all() and torch.isfinite(batch.reference_counts).all()


def test_it_is_told_how_far_reading_is(folder):
    told = []
    Observed(folder, GRID, lambda *step: told.append(step))
    assert told == [("Reading the store", done, 56) for done in range(1, 57)]  # 8 of 64 are for tests


# -- held-out counts


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40), st.integers(0, 2**31))
def test_halves_add_up(counts, seed):
    counts = np.array(counts, dtype=float)
    background = Spectrum(counts[::-1].copy(), 3000.0, backscale=10.0)
    whole = Spectrum(counts, 1000.0, background=background)
    first, second = split_counts(whole, np.random.default_rng(seed))
    np.testing.assert_array_equal(first.counts + second.counts, counts)
    np.testing.assert_array_equal(first.background.counts + second.background.counts, background.counts)
    for half in (first, second):
        assert half.exposure == 500.0 and half.background.exposure == 1500.0
        assert half.background_scale == pytest.approx(whole.background_scale)


def test_halves_of_a_poisson_spectrum_are_independent_poisson_spectra():
    rng, mean = np.random.default_rng(3), 9.0
    whole = Spectrum(rng.poisson(mean, 200_000).astype(float), 1.0)
    first, second = (half.counts for half in split_counts(whole, rng))
    for half in (first, second):
        assert half.mean() == pytest.approx(mean / 2, rel=0.01) and half.var() == pytest.approx(mean / 2, rel=0.02)
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(200_000)


def test_the_truth_scores_as_noise_does_and_better_than_anything_else(data, spectra):
    photons = spectra[1][data.validation]
    shapes = photons, photons * GRID.energy_mid**0.5, photons * np.exp(-2.0 * GRID.energy_mid**-3)
    truth, tilted, absorbed = (data.held_out(Oracle(shape)) for shape in shapes)
    # About one a bin that has counts; no more than a few per cent of it for amplitude and background.
    assert 0.3 * GRID.n_chan < truth.mean() < 1.25 * GRID.n_chan
    for wrong in (tilted, absorbed):
        found = compare_scores(wrong, truth)
        # The brightest spectrum makes most of the mean and of its error; which is better is seen one by one.
        assert found["better_by"] > found["standard_error"] and found["share_better"] > 0.8
    np.testing.assert_array_equal(truth, data.held_out(Oracle(photons)))  # the same split every time


def test_no_count_of_the_half_that_is_scored_tells_on_the_half_that_is_encoded(data, monkeypatch):
    asked = []
    monkeypatch.setattr(observed, "score", lambda model, seen, other: asked.append((seen, other)) or other.sum(dim=1))
    data.held_out(Autoencoder(tiny(), GRID))
    (seen, other), = asked  # fmt: skip
    whole = data._views([data._store[int(i)] for i in data.validation], CPU)
    assert torch.equal(seen.counts + other, whole.counts)
    assert (
        seen.background_counts <= whole.background_counts
    ).all() and seen.background_counts.sum() < 0.6 * whole.background_counts.sum()


def test_better_by_how_much():
    found = compare_scores(np.array([3.0, 5.0, 4.0]), np.array([1.0, 4.0, 4.0]))
    assert found["better_by"] == pytest.approx(1.0) and found["standard_error"] == pytest.approx(1 / np.sqrt(3))
    assert found["share_better"] == pytest.approx(2 / 3) and found["spectra"] == 3


# -- training


@pytest.mark.slow
def test_a_step_with_data_is_another_than_one_without(tmp_path, data):
    preset, lines = tiny(), []
    with_data = load_file(train.train(preset, tmp_path / "a", steps=6, data=data, report=lines.append))
    without = load_file(train.train(preset, tmp_path / "b", steps=6))
    moved = [not torch.equal(v, without[k]) for k, v in with_data.items() if k.startswith("model.") and "weight" in k]
    assert all(moved)
    start, end = (line["held_out"] for line in lines)
    assert end["start"] == pytest.approx(start["start"]) and end["spectra"] == 16 and end["end"] != end["start"]


@pytest.mark.slow
def test_training_on_them_helps_with_them(tmp_path, data):
    lines = []
    train.train(tiny(), tmp_path / "run", steps=200, data=data, report=lines.append)
    found = lines[-1]["held_out"]
    assert found["better_by"] > 2 * found["standard_error"] > 0


def test_weights_and_data_make_small_steps(tmp_path, data):
    preset = tiny()
    torch.manual_seed(0)
    start = Autoencoder(preset, GRID).state_dict()
    save_file(start, tmp_path / "w.safetensors")
    far = {}
    for name, weights in {"gentle": tmp_path / "w.safetensors", "whole": None}.items():
        end = load_file(train.train(preset, tmp_path / name, steps=1, data=data, weights=weights))
        far[name] = max(float((end[f"model.{k}"] - v).abs().max()) for k, v in start.items())
        # After one step nine tenths of the average are the new weights; fine-tuning ends half way back.
        share = 0.9 * train.WEIGHT_INTERPOLATION if name == "gentle" else 0.9
        for k, v in start.items():
            torch.testing.assert_close(end[f"average.{k}"], v + share * (end[f"model.{k}"] - v), msg=f"{name} {k}")
    assert far["gentle"] == pytest.approx(train.FINETUNE_LR_SCALE * far["whole"], rel=0.05)


@pytest.mark.slow
def test_killed_and_resumed_it_goes_on_where_it_was(tmp_path, monkeypatch, data, folder):
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0.0)  # a checkpoint every step
    weights = tmp_path / "w.safetensors"
    save_file(Autoencoder(tiny(), GRID).state_dict(), weights)
    lines = []
    whole = load_file(
        train.train(tiny(), tmp_path / "whole", steps=12, data=data, weights=weights, report=lines.append)
    )
    start = lines[0]["held_out"]["start"]
    saved = train._save

    def stop_at_five(*arguments):
        path = saved(*arguments)
        if arguments[5] == 5:
            raise KeyboardInterrupt
        return path

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "_save", stop_at_five)
        train.train(tiny(), tmp_path / "halves", steps=12, data=data, weights=weights)
    with pytest.raises(ModelError, match="begun with a store for --data"):
        train.train(tiny(), tmp_path / "halves", steps=12, resume=True)
    write([open_store(folder)[i] for i in range(4)], tmp_path / "other", {"split": ["train", "validation"] * 2})
    with pytest.raises(ModelError, match="begun with another store"):
        train.train(tiny(), tmp_path / "halves", steps=12, resume=True, data=Observed(tmp_path / "other", GRID))
    lines = []
    again = train.train(
        tiny(), tmp_path / "halves", steps=12, resume=True, data=Observed(folder, GRID), report=lines.append
    )
    for key, value in load_file(again).items():
        torch.testing.assert_close(value, whole[key], rtol=1e-3, atol=1e-4, msg=key)
    assert lines[-1]["held_out"]["start"] == pytest.approx(start)


# -- the command, and mistakes


def run(*words):
    result = CliRunner().invoke(app, ["train", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def test_the_command_tells_the_score_twice(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("xlatent.model.preset.load_preset", lambda name: tiny())
    result = run("--preset", "response-aware", "--data", folder, "--output", tmp_path / "run", "--steps", 2)
    assert result.exit_code == 0
    assert "40 spectra to train on, 16 to judge by" in result.output
    assert "held-out deviance at the start" in result.output and "of 16 spectra" in result.output


def test_mistakes_are_said_in_one_sentence(tmp_path, folder, spectra):
    here = ("--preset", "response-aware", "--steps", 1, "--output", tmp_path / "run")
    absent = run(*here, "--data", tmp_path / "absent")
    assert absent.exit_code == 1 and "should hold a store.json, and it has none" in absent.output
    write(spectra[0][:2], tmp_path / "plain")
    plain = run(*here, "--data", tmp_path / "plain")
    assert plain.exit_code == 2 and "has no column split" in plain.output
    bare = [replace(s, response=None) for s in spectra[0][:2]]
    write(bare, tmp_path / "bare", {"split": ["train", "validation"]})
    useless = run(*here, "--data", tmp_path / "bare")
    assert useless.exit_code == 2 and "no spectrum to train with in its split train" in useless.output
    assert "2 without response" in useless.output
    write(spectra[0][:2], tmp_path / "alone", {"split": ["train", "train"]})
    with pytest.raises(ParameterError, match="in its split validation, of 2 in all;"):
        Observed(tmp_path / "alone", GRID)
    paper = run("--preset", "paper", "--steps", 1, "--output", tmp_path / "run", "--data", folder)
    assert paper.exit_code == 2 and "preset paper has no likelihood" in paper.output
    assert not (tmp_path / "run").exists()
    for result in (absent, plain, useless, paper):
        assert result.output.strip().splitlines()[-1].startswith("xlatent: error: ")
