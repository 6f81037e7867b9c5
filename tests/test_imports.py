from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import seqvae

ROOT = Path(seqvae.__file__).parents[1]
HEAVY = {"torch", "pytorch_lightning", "xarray", "matplotlib", "sklearn", "scipy", "wandb", "h5py"}


def imported(*command: str) -> set[str]:
    """Return the top-level packages that a command of Python imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    lines = [
        line.split("|") for line in done.stderr.splitlines() if line.startswith("import time:")
    ]
    return {columns[2].strip().split(".")[0] for columns in lines}


@pytest.mark.parametrize(
    "command",
    [
        ("-c", "import seqvae"),
        ("-m", "seqvae", "--help"),
        ("-m", "seqvae", "--version"),
        ("-m", "seqvae", "fti"),
        ("-m", "seqvae", "fit", "--config", "nowhere.yaml"),
        ("-m", "seqvae", "infer", "--run", "nowhere"),
    ],
)
def test_first_contact_imports_nothing_heavy(command):
    assert not imported(*command) & {*HEAVY, "numpy", "jsonargparse"}


def test_refused_typo_imports_nothing_heavy_beyond_lightning():
    unavoidable = imported("-c", "import pytorch_lightning")
    flags = ("--data.source", "Lorenz", "--model", "SequentialVAE", "--model.factor_dmi", "3")
    assert not (imported("-m", "seqvae", "fit", *flags) - unavoidable) & HEAVY


def test_public_names_are_what_they_say():
    from seqvae.models import VAE
    from seqvae.verbs import fit

    assert seqvae.VAE is VAE
    assert seqvae.fit is fit
    assert set(seqvae.__all__) <= set(dir(seqvae))
    for name in seqvae.__all__:
        assert getattr(seqvae, name).__name__ == name


def test_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'LFADS'"):
        _ = seqvae.LFADS
