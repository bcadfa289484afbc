"""``xlatent show`` and ``xlatent info``."""

import numpy as np
import pytest
from astropy.io import fits

SIGNATURES = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


@pytest.mark.parametrize("suffix", list(SIGNATURES))
def test_figures_of_every_kind_are_the_same_each_time(xlatent, drawers, tmp_path, suffix):
    outputs = [tmp_path / f"{i}{suffix}" for i in range(2)]
    for output in outputs:
        result = xlatent("show", drawers / "bright.pha", "--output", output)
        assert result.exit_code == 0, result.stderr
        assert result.stderr == ""
        assert result.stdout.startswith("W = ") and f"written to {output}" in result.stdout
    first, second = (output.read_bytes() for output in outputs)
    assert first.startswith(SIGNATURES[suffix]) and first == second
    assert sorted(p.name for p in tmp_path.iterdir()) == [o.name for o in outputs]


@pytest.mark.parametrize("name", ["faint", "empty"])
def test_few_or_no_counts_can_be_drawn(xlatent, drawers, tmp_path, name):
    result = xlatent("show", drawers / f"{name}.pha", "--output", tmp_path / "f.png")
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["bright.pha", "--output", "f.jpg"], 2, ".png, .pdf, .svg"),
        (["bright.pha", "--output", "nowhere/f.png"], 2, "there is no folder"),
        (["bright.pha", "--output", "f.png", "--model", "unknown"], 2, "chandra-acis-8"),
        (["gone.pha", "--output", "f.png"], 1, "gone.pha does not exist"),
        (["bright.pha", "--output", "f.png", "--rmf", "none"], 1, "give them with --arf and --rmf"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(xlatent, data, monkeypatch, arguments, code, words):
    monkeypatch.chdir(data)
    result = xlatent("show", *arguments)
    errors = [line for line in result.stderr.splitlines() if line.startswith("xlatent: error: ")]
    assert result.exit_code == code and len(errors) == 1 and words in errors[0], result.stderr
    assert not [p for p in data.iterdir() if p.suffix in (".png", ".jpg")]


def test_a_bad_file_is_one_sentence(xlatent, spoilt, tmp_path):
    result = xlatent("show", spoilt, "--output", tmp_path / "f.png")
    errors = [line for line in result.stderr.splitlines() if line.startswith("xlatent: error: ")]
    assert result.exit_code == 1 and len(errors) == 1 and spoilt.name in errors[0], result.stderr
    assert not (tmp_path / "f.png").exists()


def test_info_tells_what_was_found(xlatent, drawers):
    result = xlatent("info", drawers / "bright.pha")
    assert result.exit_code == 0 and result.stderr == ""
    facts = dict(line.split(None, 1) for line in result.stdout.splitlines() if line[:1].strip())
    assert facts["object"] == "A [red] source"
    assert facts["exposure"] == "20000 s"
    assert facts["background"].startswith(str(drawers / "bright_bkg.pha"))
    assert "scale to the source region 0.1" in result.stdout
    assert facts["ARF"].startswith(str(drawers / "bright.arf"))
    assert "1070 energies 0.3-11 keV" in facts["RMF"]


def test_info_lists_warnings_once_and_needs_no_response(xlatent, data):
    (data / "bright.rmf").unlink()
    result = xlatent("info", data / "bright.pha")
    assert result.exit_code == 0 and result.stderr == ""
    warnings = [line for line in result.stdout.splitlines() if line.startswith("warning")]
    assert len([line for line in warnings if "bright.rmf" in line]) == 1
    assert "\nresponse    none\n" in result.stdout


def test_info_of_a_bad_file_is_one_sentence(xlatent, spoil):
    result = xlatent("info", spoil("image"))
    assert result.exit_code == 1
    assert result.stderr.startswith("xlatent: error: ") and result.stderr.count("\n") == 1


@pytest.fixture
def grating(drawers, tmp_path):
    """PHA file of type II with two spectra of the bright source."""
    with fits.open(drawers / "bright.pha") as file:
        counts = np.asarray(file["SPECTRUM"].data["COUNTS"])
        header = file["SPECTRUM"].header
        columns = [fits.Column("COUNTS", f"{counts.size}J", array=np.stack([counts, 2 * counts]))]
        table = fits.BinTableHDU.from_columns(columns, name="SPECTRUM")
        table.header.update({key: header[key] for key in ("HDUCLAS1", "EXPOSURE")} | {"HDUCLAS4": "TYPE:II"})
        fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "grating.pha")
    return tmp_path / "grating.pha"


def test_a_file_of_several_spectra_is_told_whole_and_not_drawn(xlatent, grating, drawers):
    told = xlatent("info", grating, "--rmf", drawers / "bright.rmf", "--arf", drawers / "bright.arf")
    assert told.exit_code == 0, told.stderr
    facts = [line.split(None, 1) for line in told.stdout.splitlines() if line.strip()]
    assert [fact[1] for fact in facts if fact[0] == "name"] == ["grating_1", "grating_2"]
    first, second = (float(fact[1]) for fact in facts if fact[0] == "counts")
    assert second == 2 * first
    drawn = xlatent("show", grating, "--output", grating.with_suffix(".png"))
    assert drawn.exit_code == 1 and "grating.pha holds 2 spectra (type II), and one can be drawn" in drawn.stderr
    assert not grating.with_suffix(".png").exists()
