"""The command ``xlatent`` with presets small enough for tests and a checkpoint every step; torchrun starts it."""

import os
import pickle
from pathlib import Path

from xlatent.cli.main import app
from xlatent.model import batches, preset, train

LOG_EVERY = 10
shipped = preset.load_preset


def small(name):
    network = preset.Network(patch=16, width=16, layers=1, heads=2, decoder_width=32, decoder_blocks=1)
    training = preset.Training(batch=16, warmup_steps=5, prior_weight=60.0)
    return shipped(name).model_copy(update={"network": network, "training": training})


if __name__ == "__main__":
    preset.load_preset = small
    train.CHECKPOINT_SECONDS, train.LOG_EVERY = 0.0, LOG_EVERY
    folder = Path(os.environ["SMALL_TRAIN"])
    (folder / os.environ["RANK"]).write_text(str(os.getpid()))
    # Its making takes seconds, and it is always the same one.
    batches.Observatory = lambda grid, energy: pickle.loads((folder / "observatory").read_bytes())
    app()
