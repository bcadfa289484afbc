import json
import shutil

import pytest

from xlatent.core import bundle
from xlatent.core.errors import ModelError
from xlatent.infer.embed import load_model


@pytest.fixture
def copy(tmp_path):
    target = tmp_path / "model"
    shutil.copytree(bundle.locate(bundle.DEFAULT_MODEL), target)
    return target


def test_the_default_model_ships():
    assert bundle.DEFAULT_MODEL in bundle.shipped()
    model = load_model()
    assert model.info.latents == 8 and bundle.DEFAULT_MODEL in repr(model)


def test_the_shipped_bundle_is_small():
    folder = bundle.locate(bundle.DEFAULT_MODEL)
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 12e6
    assert (folder / "CARD.md").is_file()


def test_an_unknown_model_is_named_with_the_known_ones():
    with pytest.raises(ModelError, match=r"no model 'nonsense'.*chandra-acis-8"):
        load_model("nonsense")


def test_a_wrong_sha256_is_refused(copy):
    with (copy / "decoder.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"\0\1\2\3")
    with pytest.raises(ModelError, match=r"decoder\.onnx: sha256 is"):
        load_model(copy)


def test_a_missing_file_is_refused(copy):
    (copy / "encoder.onnx").unlink()
    with pytest.raises(ModelError, match=r"encoder\.onnx is missing"):
        load_model(copy)


@pytest.mark.parametrize("damage", ["{", '{"name": 3}', "[]", ""])
def test_a_damaged_description_is_refused(copy, damage):
    (copy / "bundle.json").write_text(damage)
    with pytest.raises(ModelError, match=r"bundle\.json: .*fetch it again"):
        load_model(copy)


def test_the_description_survives_writing(tmp_path):
    info = bundle.read_info(bundle.locate(bundle.DEFAULT_MODEL))
    bundle.write_info(info, tmp_path)
    assert bundle.BundleInfo.model_validate(json.loads((tmp_path / "bundle.json").read_text())) == info
