"""How long a refused typo takes, as a multiple of importing Lightning; alternating in one run."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

TYPO = [
    "-m",
    "seqvae",
    "fit",
    "--data.source",
    "Lorenz",
    "--model",
    "VAE",
    "--model.latent_dmi",
    "3",
]
LIGHTNING = ["-c", "import pytorch_lightning"]
HELP = ["-m", "seqvae", "--help"]


def seconds(arguments: list[str]) -> float:
    """Run Python once."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    return time.perf_counter() - start


def main() -> None:
    """Print medians of alternating runs, and their ratios."""
    commands = {"refused typo": TYPO, "import pytorch_lightning": LIGHTNING, "--help": HELP}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(7):
        for name, arguments in commands.items():
            times[name].append(seconds(arguments))
    reference = median(times["import pytorch_lightning"])
    for name, measured in times.items():
        print(f"{name:<26}{median(measured):6.2f} s{median(measured) / reference:6.2f} x Lightning")


if __name__ == "__main__":
    main()
