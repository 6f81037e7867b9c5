"""Inference: many posterior samples of each trial, decoded together or in a pass each."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from sizes import Size, make_data, make_model
from worker import Block, Turns, forget_peak, peak_mib

from seqvae.analysis.posterior import posterior_dataset


def measure(
    turns: Turns, size: Size, recursion: str, *, num_trials: int, num_samples: int, passes: int
) -> None:
    """Hand over the seconds of ``passes`` inferences of all trials, and their peak of memory."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = make_data(size, num_trials=num_trials)
    model = make_model(size, data.spec, recursion=recursion)
    model.initialize(data)
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "posterior.nc")
        posterior_dataset(model, data, np.arange(1), num_samples=1, path=path).close()
        turns.wait()
        while True:
            held, start = forget_peak(), time.perf_counter()
            for seed in range(passes):
                posterior_dataset(
                    model,
                    data,
                    np.arange(num_trials),
                    num_samples=num_samples,
                    path=path,
                    seed=seed,
                ).close()
            seconds = time.perf_counter() - start
            turns.wait(Block(seconds, peak_mib=peak_mib() - held))
