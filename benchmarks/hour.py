"""Peak memory of each command on an hour of 200 neurons at 1 kHz on disk, fitted at 20 ms."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import yaml
from scipy.signal import lfilter

BIN, LATENTS = 20, 6


def rates_of(
    generator: np.random.Generator, seconds: int, neurons: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first bin and expected counts per bin, of neurons that share slow latents."""
    bins = seconds * 1000 // BIN
    noise = generator.normal(size=(bins, LATENTS))
    latents = lfilter([np.sqrt(1 - 0.97**2)], [1, -0.97], noise, axis=0)
    loadings = generator.normal(size=(LATENTS, neurons)) * 0.75 / np.sqrt(LATENTS)
    bias = np.log(generator.uniform(2, 20, neurons) * BIN / 1000)
    for start in range(0, bins, 2000):
        yield start, np.exp(latents[start : start + 2000] @ loadings + bias)


def write_recording(path: Path, *, seconds: int, neurons: int, seed: int = 0) -> None:
    """Write Poisson counts per millisecond."""
    generator = np.random.default_rng(seed)
    bins = seconds * 1000 // BIN
    with h5py.File(path, "w") as file:
        counts = file.create_dataset("activity", (1, bins * BIN, neurons), np.uint8)
        file.attrs["bin_width"] = 0.001
        for start, rates in rates_of(generator, seconds, neurons):
            place = slice(start * BIN, (start + len(rates)) * BIN)
            counts[0, place] = np.minimum(
                generator.poisson(np.repeat(rates / BIN, BIN, axis=0)), 255
            )


def peak(arguments: list[str], log: Path) -> tuple[float, float]:
    """Run a command and return its peak memory in GB, and seconds."""
    start = time.perf_counter()
    with log.open("w") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "seqvae", *arguments], stdout=out, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{arguments[0]} failed:\n{log.read_text()}")
    return usage.ru_maxrss / 1e6, time.perf_counter() - start


def main() -> None:
    """Print a line for each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--neurons", type=int, default=200)
    parser.add_argument("--model", default="SequentialVAE")
    parser.add_argument("--folder", type=Path, help="keep the recording here, and take it again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        folder = Path(passing)
        path = (options.folder or folder) / "hour.h5"
        if not path.exists():
            write_recording(path, seconds=options.seconds, neurons=options.neurons)
        print(f"recording: {path.stat().st_size / 1e6:.0f} MB")
        data = {
            "source": {"class_path": "HDF5", "init_args": {"path": str(path)}},
            "transforms": [{"class_path": "Rebin", "init_args": {"bin_width": BIN / 1000}}],
            "window_bins": 100,
            "batch_size": 32,
        }
        trainer = {"max_epochs": 1, "enable_progress_bar": False}
        trainer_tree = {"class_path": "pytorch_lightning.Trainer", "init_args": trainer}
        learner = {"class_path": "GradientLearner", "init_args": {"trainer": trainer_tree}}
        config = {"data": data, "model": {"class_path": options.model}, "learner": learner}
        (folder / "check.yaml").write_text(yaml.safe_dump({"data": data}))
        (folder / "fit.yaml").write_text(yaml.safe_dump(config))
        run, few = str(folder / "run"), ["--num_samples", "5"]
        commands = [
            ["check", "--config", str(folder / "check.yaml")],
            ["fit", "--config", str(folder / "fit.yaml"), "--run_dir", run],
            ["infer", "--run", run, "--merged", "true", *few, "--dtype", "float16",
             "--variables", "[rates, rates_sd]"],
            ["evaluate", "--run", run, *few],
        ]  # fmt: skip
        for arguments in commands:
            gigabytes, seconds = peak(arguments, folder / "log")
            print(f"{arguments[0]:9s} {gigabytes:.2f} GB at most, {seconds:.0f} s")


if __name__ == "__main__":
    main()
