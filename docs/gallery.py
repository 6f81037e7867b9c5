"""Draw the figures of the gallery, of simulations: `python docs/gallery.py [FOLDER OF RUNS]`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from seqvae import EM, LinearDynamics, NeuralData, Recording, Run, fit
from seqvae.console.main import main

HERE = Path(__file__).parent
CONDITIONS, TRIALS, BINS, NEURONS, BIN_WIDTH = 4, 30, 50, 30, 0.02


def fitted(name: str, folder: Path) -> Run:
    """Fit a config of `configs/`, or return the run that is there."""
    run_dir = folder / name
    if not run_dir.exists():
        config = HERE.parent / "configs" / f"{name}.yaml"
        assert main(["fit", "--config", str(config), "--run_dir", str(run_dir)]) == 0
    return Run(run_dir)


def turning() -> Recording:
    """Return counts that follow a turning plane, which conditions enter at other angles."""
    noise = np.random.default_rng(0)
    condition = np.tile(np.arange(CONDITIONS), TRIALS)
    start = condition * 2 * np.pi / CONDITIONS + noise.normal(0, 0.2, len(condition))
    time = np.arange(BINS) * BIN_WIDTH
    angle = start[:, None] + 2 * np.pi * time
    growth = np.minimum(time / 0.3, 1.0)
    state = growth[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    readout = noise.normal(0, 0.8, (2, NEURONS))
    rates = 12.0 * np.exp(state @ readout)
    counts = noise.poisson(rates * BIN_WIDTH).astype(np.float32)
    words = np.array(["right", "up", "left", "down"])[condition]
    return Recording(counts, BIN_WIDTH, condition=words, behavior=state)


def draw(run: Run, *names: str, prefix: str = "") -> None:
    """Draw figures of a run into the gallery, in 256 colours, which a page loads fast."""
    for name in names:
        path = HERE / "gallery" / f"{prefix}{name}.png"
        getattr(run.plot, name)().savefig(path)
        with Image.open(path) as picture:
            picture.convert("RGB").quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/gallery")
    svae = fitted("lorenz_svae", folder)
    draw(svae, "rasters_and_rates", "rate_traces", "latents", "inferred_inputs", "learning_curves")
    draw(fitted("simulated_slds", folder), "states")
    data = NeuralData(turning(), heldout=0.2, val_fraction=0.5)
    linear = fit(data, partial(LinearDynamics, latent_dim=3), EM(progress=False), in_memory=True)
    draw(linear, "psth", "latents", prefix="conditions_")
