from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seqvae.cli import main
from seqvae.data import Recording
from seqvae.data.sources import write_hdf5

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
ONE_STEP = ["--learner.trainer.max_epochs", "1", "--learner.trainer.limit_train_batches", "1"]
ONE_ITERATION = ["--learner.max_iterations", "1"]


def small_recording(path: Path) -> Path:
    counts = np.random.default_rng(0).poisson(0.5, size=(30, 12, 10)).astype(float)
    write_hdf5(Recording(counts, bin_width=0.02, heldin=np.arange(7)), path)
    return path


def test_there_are_configs():
    assert CONFIGS


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_trains_a_step(config, tmp_path):
    by_em = "LinearDynamics" in config.read_text()
    arguments = ["fit", "--config", str(config), "--run_dir", str(tmp_path / "run")]
    arguments += ONE_ITERATION if by_em else ONE_STEP
    if "maze" in config.stem:
        path = small_recording(tmp_path / "recording.h5")
        arguments += ["--data.source.path", str(path)]
    assert main(arguments) == 0
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "weights.pt", "history.csv", "figures"} <= left
    assert by_em or "last.ckpt" in left


def test_digits_draw_the_manifold(tmp_path):
    (config,) = (path for path in CONFIGS if path.stem == "digits_vae")
    run = tmp_path / "run"
    assert main(["fit", "--config", str(config), "--run_dir", str(run), *ONE_STEP]) == 0
    drawn = {path.stem for path in (run / "figures").iterdir()}
    assert drawn == {"learning_curves", "reconstructions", "latents", "manifold"}
