"""``xlatent compare-models`` on models whose relation is known."""

import json
import re
import shutil

import numpy as np
import pytest

from xlatent.core.bundle import DEFAULT_MODEL, locate, read_info, sha256, write_info


@pytest.fixture(scope="module", autouse=True)
def fewer_spectra():
    """As many spectra as make a comparison, not as many as make a good one."""
    from xlatent.workflows import compare_models

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare_models, "N_SIMULATED", 96)
        yield


def rows(output):
    """Numbers of the table: matrix and offset; R²; place and correlation of the best match."""
    found = [line.split() for line in output.splitlines() if re.match(r" *z\d +[+-]", line)]
    return (
        np.array([[float(x) for x in row[1:-3]] for row in found]),
        np.array([float(row[-3]) for row in found]),
        [row[-2] for row in found],
        np.array([float(row[-1]) for row in found]),
    )


@pytest.mark.slow
def test_a_model_against_itself_is_the_identity(xlatent):
    result = xlatent("compare-models", DEFAULT_MODEL, DEFAULT_MODEL)
    assert result.exit_code == 0, result.stderr
    matrix, r2, match, correlation = rows(result.stdout)
    np.testing.assert_allclose(matrix[:, :8], np.eye(8), atol=0.005)
    assert np.all(r2 == 1.0) and np.all(correlation == 1.0) and match == [f"z{i}" for i in range(8)]
    assert "96 spectra" in result.stdout and "R² of A from B: z0 1.000" in result.stdout


@pytest.mark.slow
def test_the_same_network_along_other_axes_gives_the_turn(xlatent, tmp_path):
    pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    from xlatent.model.autoencoder import Autoencoder
    from xlatent.model.export import export, export_decoder
    from xlatent.model.preset import Preset

    shipped, plain = locate(DEFAULT_MODEL), tmp_path / "plain"
    weights = load_file(shipped / "weights.safetensors")
    before = weights["axes"]
    # The decoder that ships is not that of the weights, which are compared.
    info = read_info(shipped)
    network = Autoencoder(Preset.model_validate(info.preset), info.model_grid())
    network.load_state_dict(weights)
    shutil.copytree(shipped, plain)
    export_decoder(network.eval(), plain)
    files = info.files | {"decoder.onnx": sha256(plain / "decoder.onnx")}
    write_info(info.model_copy(update={"files": files}), plain)
    save_file({f"average.{k}": v for k, v in weights.items()}, tmp_path / "checkpoint.safetensors")
    preset = json.loads((shipped / "bundle.json").read_text())["preset"]
    state = {"preset": preset, "step": 1, "elapsed_s": 1.0, "seed": 0}
    (tmp_path / "checkpoint.json").write_text(json.dumps(state))
    export(tmp_path, tmp_path / "turned", name="turned", training="")
    after = load_file(tmp_path / "turned" / "weights.safetensors")["axes"]
    result = xlatent("compare-models", plain, tmp_path / "turned")
    assert result.exit_code == 0, result.stderr
    matrix, r2, _, _ = rows(result.stdout)
    # Refinement stops within 1e-2 of the best statistic, which leaves the weakest latent free to a few hundredths.
    np.testing.assert_allclose(matrix[:, :8], np.asarray(after) @ np.asarray(before).T, atol=0.1)
    assert np.all(r2 > 0.99)


def test_mistakes_are_one_sentence(xlatent, drawers):
    missing = xlatent("compare-models", DEFAULT_MODEL, "nowhere")
    assert missing.exit_code == 2 and missing.stderr.count("\n") == 1 and "no model 'nowhere'" in missing.stderr
    few = xlatent("compare-models", DEFAULT_MODEL, DEFAULT_MODEL, "--spectra", drawers)
    assert few.exit_code == 2 and "50 or more spectra, found 3" in few.stderr and few.stderr.count("\n") == 1
    none = xlatent("compare-models", DEFAULT_MODEL, DEFAULT_MODEL, "--spectra", drawers / "absent.pha")
    assert none.exit_code == 1 and none.stderr.count("\n") == 1


def test_the_help_says_how_many_spectra_it_wants(xlatent):
    from xlatent.infer.compare import MIN_SPECTRA
    from xlatent.workflows.compare_models import N_SIMULATED

    text = " ".join(re.sub("[│╭╮╰╯─]", " ", xlatent("compare-models", "--help").stdout).split())
    assert f"{MIN_SPECTRA} or more spectra" in text and MIN_SPECTRA == 50
    assert f"{N_SIMULATED} simulated spectra" in text or N_SIMULATED == 96
