from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from seqvae.data import Recording
from seqvae.data.sources import Lorenz

# Small tensors: threads that wait for each other cost more than they bring.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Hundreds of tests take the same simulation, whose arrays are read-only; shapes that are checked at
# each of its thousands of steps would take seconds each time.
Lorenz.load = lru_cache(maxsize=32)(Lorenz.load)


@pytest.fixture
def shared_data() -> Path:
    """Folder of real recordings that may lie beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real recordings are not there")
    return folder


@pytest.fixture
def toy_recording() -> Recording:
    """24 trials, 12 bins of 20 ms, 6 neurons with about one count per bin, 2 conditions."""
    generator = np.random.default_rng(0)
    return Recording(
        generator.poisson(1.0, (24, 12, 6)),
        0.02,
        inputs=generator.standard_normal((24, 12, 2)),
        behavior=generator.standard_normal((24, 12, 3)),
        condition=np.arange(24) % 2,
        rates=generator.uniform(10, 90, (24, 12, 6)),
    )
