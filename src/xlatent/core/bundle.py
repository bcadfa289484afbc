"""A model on disk: one folder with its description, ONNX graphs, weights and errors, each checked by sha256."""

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xlatent.core.atomic import atomic
from xlatent.core.errors import ModelError, ParameterError
from xlatent.core.grid import ModelGrid

INFO = "bundle.json"
DEFAULT_MODEL = "chandra-acis-8"
_PAPER = "Pinciroli Vago, Martinez-Galarza & Amato 2025, arXiv:2510.14102"


class BundleInfo(BaseModel):
    """What ``bundle.json`` says of a model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: int = 1
    latents: int = Field(ge=1)
    grid: dict[str, int | float]
    preset: dict[str, Any]
    training: str
    steps: int
    training_hours: float
    metrics: dict[str, Any]
    licence: str = "BSD-3-Clause"
    citation: str = _PAPER
    files: dict[str, str]

    def model_grid(self) -> ModelGrid:
        """Return the grid that the model works on."""
        g = self.grid
        return ModelGrid(
            g["energy_lo"], g["energy_hi"], int(g["n_energy"]), g["chan_lo"], g["chan_hi"], int(g["n_chan"])
        )

    @property
    def probabilistic(self) -> bool:
        """Whether the latents have a posterior; the ``paper`` preset's are points."""
        return bool(self.preset["loss"] == "poisson")

    def check_posterior(self, posterior: str, refine: bool) -> None:
        """Make sure that the model can give a kind of posterior.

        Parameters
        ----------
        posterior : str
            ``"gaussian"`` or ``"exact"``.
        refine : bool

        Raises
        ------
        ParameterError
            If the posterior is neither, or is to be exact where there is none: not refined, or of a model of points.
        """
        if posterior not in ("gaussian", "exact"):
            raise ParameterError(f"posterior is 'gaussian' or 'exact', found {posterior!r}")
        if posterior == "exact" and not refine:
            raise ParameterError("draws from the exact posterior start from the refined one; leave refinement on")
        if posterior == "exact" and not self.probabilistic:
            raise ParameterError(f"the latents of model {self.name!r} are points without a posterior to draw from")

    @property
    def beta(self) -> float:
        """Weight of the divergence from the prior at the end of training; 1 for a model without a posterior."""
        return float(self.preset["training"]["beta_end"]) if self.probabilistic else 1.0

    @property
    def fingerprint(self) -> str:
        """Sha256 that stands for the whole bundle: of its files' own, in order of name."""
        joined = "\n".join(f"{name} {digest}" for name, digest in sorted(self.files.items()))
        return hashlib.sha256(joined.encode()).hexdigest()


def shipped() -> list[str]:
    """Return the names of the bundles that come with the package."""
    folder = resources.files("xlatent") / "weights"
    return sorted(p.name for p in folder.iterdir() if (p / INFO).is_file()) if folder.is_dir() else []


def locate(name: str | Path) -> Path:
    """Find a bundle by the name of a shipped one or the path of a folder.

    Raises
    ------
    ModelError
        If it is neither.
    """
    if (Path(name) / INFO).is_file():
        return Path(name)
    if str(name) in shipped():
        return Path(str(resources.files("xlatent") / "weights" / str(name)))
    known = ", ".join(shipped()) or "none"
    raise ModelError(f"there is no model {str(name)!r}: expected a shipped bundle ({known}) or a folder with a {INFO}")


def read_info(folder: Path) -> BundleInfo:
    """Read a bundle's description and check every file it names against its sha256.

    Raises
    ------
    ModelError
        If the description is not valid, or a file is missing or altered.
    """
    try:
        info = BundleInfo.model_validate_json((folder / INFO).read_text())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ModelError(f"{folder / INFO}: {where}: {first['msg']}; the bundle is damaged, fetch it again") from error
    for name, expected in info.files.items():
        path = folder / name
        if not path.is_file():
            raise ModelError(f"{path} is missing from the bundle; fetch the bundle again")
        found = sha256(path)
        if found != expected:
            raise ModelError(
                f"{path}: sha256 is {found[:12]}..., expected {expected[:12]}...; "
                "the file is damaged, fetch the bundle again"
            )
    return info


def write_info(info: BundleInfo, folder: Path) -> None:
    """Write a bundle's description, whole or not at all.

    Raises
    ------
    WriteError
        If it cannot be written.
    """
    with atomic(folder / INFO) as temporary:
        temporary.write_text(json.dumps(info.model_dump(), indent=1, ensure_ascii=False) + "\n")


def sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
