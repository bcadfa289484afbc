"""The command line as a function, and small observations on disk."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from xlatent.cli.main import app
from xlatent.core.spectrum import Spectrum
from xlatent.simulate import acis
from xlatent.simulate.continuum import powerlaw


@pytest.fixture
def xlatent():
    """Run a command in this process; the result has exit_code, stdout and stderr."""

    def run(*arguments):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture(scope="session")
def drawers(tmp_path_factory) -> Path:
    """Observations of a power law, and an empty one, with their companions; not to be changed."""
    folder = tmp_path_factory.mktemp("drawers")
    response = acis.response("BI", 2005.0)
    edges = np.append(response.energy_lo, response.energy_hi[-1])
    folded = response.fold(powerlaw(edges, 1.8))
    rng = np.random.default_rng(2)
    n = folded.size
    for name, counts in {"bright": 2000, "faint": 60, "empty": 0}.items():
        on = rng.poisson(counts * folded / folded.sum()).astype(float)
        off = rng.poisson(0.2, n).astype(float)
        background = Spectrum(off, 2e4, backscale=10.0)
        meta = {"name": name, "object": "A [red] source", "telescope": "CHANDRA", "instrument": "ACIS"}
        if counts:
            on += rng.poisson(0.02, n)
        Spectrum(on, 2e4, background=background, response=response, meta=meta).to_ogip(folder)
    return folder


@pytest.fixture
def data(drawers, tmp_path) -> Path:
    """A copy of the observations, to be spoilt at will."""
    return Path(shutil.copytree(drawers, tmp_path / "data"))


@pytest.fixture
def spoil(data):
    """Make a file of one of the kinds that people give by mistake, and return its path."""
    from astropy.io import fits

    def make(kind: str) -> Path:
        path = data / f"{kind}.pha"
        if kind == "text":
            path.write_text("channel counts\n1 3\n")
        elif kind == "empty-file":
            path.write_bytes(b"")
        elif kind == "truncated":
            path.write_bytes((data / "bright.pha").read_bytes()[:7000])
        elif kind == "image":
            fits.PrimaryHDU(np.zeros((8, 8))).writeto(path)
        elif kind == "events":
            fits.BinTableHDU.from_columns([fits.Column("TIME", "D", array=np.arange(3.0))], name="EVENTS").writeto(path)
        elif kind in (
            "no-counts-column",
            "nan-counts",
            "negative-counts",
            "zero-exposure",
            "no-response",
            "few-channels",
        ):
            with fits.open(data / "bright.pha") as hdus:
                header, table = hdus[1].header, hdus[1].data
                counts = np.array(table["COUNTS"], dtype=float)
                channels = np.array(table["CHANNEL"])
                if kind == "nan-counts":
                    counts[5] = np.nan
                elif kind == "negative-counts":
                    counts[5] = -1.0
                elif kind == "zero-exposure":
                    header["EXPOSURE"] = 0.0
                elif kind == "no-response":
                    header["RESPFILE"] = header["ANCRFILE"] = "none"
                elif kind == "few-channels":
                    counts, channels = np.append(counts, 0.0), np.append(channels, channels[-1] + 1)
                name = "FLUX" if kind == "no-counts-column" else "COUNTS"
                columns = [fits.Column("CHANNEL", "J", array=channels), fits.Column(name, "D", array=counts)]
                kept = {k: header[k] for k in ("HDUCLAS1", "EXPOSURE", "RESPFILE", "ANCRFILE", "BACKFILE")}
                new = fits.BinTableHDU.from_columns(columns, name="SPECTRUM")
                new.header.update(kept)
                new.writeto(path)
        else:
            raise ValueError(kind)
        return path

    return make


KINDS = (
    "text",
    "empty-file",
    "truncated",
    "image",
    "events",
    "no-counts-column",
    "nan-counts",
    "negative-counts",
    "zero-exposure",
    "no-response",
    "few-channels",
)


@pytest.fixture(params=KINDS)
def spoilt(request, spoil) -> Path:
    """Each kind of bad file in turn."""
    return spoil(request.param)


@pytest.fixture
def damaged_bundle(tmp_path) -> Path:
    """The shipped model with one byte of one file changed."""
    from xlatent.core.bundle import DEFAULT_MODEL, locate

    folder = Path(shutil.copytree(locate(DEFAULT_MODEL), tmp_path / "damaged"))
    content = bytearray((folder / "decoder.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "decoder.onnx").write_bytes(content)
    return folder
