from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pynwb import TimeSeries

from nwb_files import nwb_file, starts, write_nwb
from seqvae.console.main import main
from seqvae.data import Recording
from seqvae.data.sources import write_hdf5

ALL = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
GRIDS = [path for path in ALL if path.stem.endswith("_cv")]
CONFIGS = [path for path in ALL if path not in GRIDS and path.stem != "sweep"]
ONE_STEP = ["--learner.trainer.max_epochs", "1", "--learner.trainer.limit_train_batches", "1"]
ONE_ITERATION = ["--learner.max_iterations", "1"]
WITHOUT_CHOICE = ["--model.smoothing", "0.02"]


def small_recording(path: Path) -> Path:
    counts = np.random.default_rng(0).poisson(0.5, size=(30, 12, 10)).astype(float)
    write_hdf5(Recording(counts, bin_width=0.02, heldin=np.arange(7)), path)
    return path


def benchmark_file(path: Path) -> Path:
    """A file that has the columns and series of every data set of the benchmark."""
    numbers = list(range(12))
    columns = ("trial_type", "cond_dir", "ctr_hold_bump", "is_eye", "theta", "is_short", "ts")
    trials: dict[str, list] = {name: numbers for name in columns}
    trials["go_time"] = (starts() + 2.0).tolist()
    file = nwb_file(units={"heldout": [False] * 4 + [True]}, trials=trials)
    velocity = file.processing["behavior"]["hand_vel"]
    finger = TimeSeries(name="finger_vel", data=velocity.data, unit="m/s", timestamps=velocity)
    file.processing["behavior"].add(finger)
    return write_nwb(path, file)


def test_there_are_configs():
    assert CONFIGS
    assert GRIDS


@pytest.mark.filterwarnings("ignore:.*largest of the grid")
@pytest.mark.parametrize("config", GRIDS, ids=lambda path: path.stem)
def test_every_grid_does_its_cells(config, tmp_path):
    flags = {
        "dims": "[1]", "trial_folds": 2, "neuron_folds": 2, "num_samples": 2, "jobs": 1,
        "data.source.num_trials": 10, "data.source.num_val": 2, "data.source.num_time_bins": 12,
        "models.fa.smoothing": 0.02, "learners.plds.max_iterations": 1, "out_dir": tmp_path / "cv",
    }  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    assert main(["crossvalidate", "--config", str(config), *words]) == 0
    assert (tmp_path / "cv/curve.png").exists()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_trains_a_step(config, tmp_path):
    by_em = "LinearDynamics" in config.read_text()
    at_once = any(name in config.read_text() for name in ("models.FactorAnalysis", "models.PCA"))
    arguments = ["fit", "--config", str(config), "--run_dir", str(tmp_path / "run")]
    arguments += WITHOUT_CHOICE if at_once else ONE_ITERATION if by_em else ONE_STEP
    if "maze" in config.stem:
        path = small_recording(tmp_path / "recording.h5")
        arguments += ["--data.source.path", str(path)]
    if config.stem.startswith("nlb"):
        path = benchmark_file(tmp_path / "recording.nwb")
        arguments += ["--data.source.path", str(path), "--data.source.bin_width", "0.05"]
        arguments += ["--data.forecast_bins", "4", "--learner", "GradientLearner"]
    if "sources.Images" in config.read_text():
        np.savez(tmp_path / "images.npz", images=np.random.default_rng(0).random((30, 8, 8)))
        arguments += ["--data.source.path", str(tmp_path / "images.npz")]
    assert main(arguments) == 0
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "weights.pt", "history.csv", "figures"} <= left
    assert by_em or at_once or "last.ckpt" in left


def test_digits_draw_the_manifold(tmp_path):
    (config,) = (path for path in CONFIGS if path.stem == "digits_vae")
    run = tmp_path / "run"
    assert main(["fit", "--config", str(config), "--run_dir", str(run), *ONE_STEP]) == 0
    drawn = {path.stem for path in (run / "figures").iterdir()}
    assert drawn == {
        "learning_curves",
        "reconstructions",
        "prior_samples",
        "aggregate_posterior",
        "latents",
        "manifold",
    }
