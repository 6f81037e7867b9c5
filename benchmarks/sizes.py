"""The sizes that are measured, and data and model of such a size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seqvae import NeuralData, SequentialVAE
    from seqvae.types import DataSpec

BATCHES = 4  # of trials in memory: an epoch
DROPOUT = 0.3  # of the model, and of the data's coordinated dropout


@dataclass(frozen=True)
class Size:
    """Sizes of data and model; the encoders are bidirectional, ``encoder_dim`` each direction."""

    num_heldin: int = 107
    num_neurons: int = 142
    num_encoded: int = 140
    num_bins: int = 180
    batch_size: int = 64
    encoder_dim: int = 100
    controller_dim: int = 80
    generator_dim: int = 100
    factor_dim: int = 40
    inferred_input_dim: int = 2
    initial_condition_dim: int = 64
    bin_width: float = 0.005


_MAZE = Size(137, 182, 35, 45, 256, 64, 64, 200, 100, bin_width=0.02)

SIZES = {
    "small": Size(),
    "small256": Size(batch_size=256),
    "maze": _MAZE,
    "large": replace(_MAZE, num_encoded=140, num_bins=180, batch_size=1024),
    "maze64": replace(_MAZE, batch_size=64),
    "maze34": replace(_MAZE, batch_size=34),
    "maze272": replace(_MAZE, batch_size=8 * 34),
    "autonomous": Size(inferred_input_dim=0),
    "area2": Size(49, 65, 120, 160, 256),
    "long": Size(num_encoded=900, num_bins=1000),
}


def make_data(size: Size, *, num_trials: int | None = None) -> NeuralData:
    """Random Poisson counts in memory, all for training, with coordinated dropout."""
    import numpy as np

    from seqvae import NeuralData
    from seqvae.data.masking import CoordinatedDropout
    from seqvae.data.sources import Arrays

    num_trials = BATCHES * size.batch_size if num_trials is None else num_trials
    shape = (num_trials, size.num_bins, size.num_neurons)
    source = Arrays(
        np.random.default_rng(0).poisson(0.1, shape).astype(np.float32),
        bin_width=size.bin_width,
        split=np.full(num_trials, "train"),
        heldin=np.arange(size.num_heldin),
        num_encoded_bins=size.num_encoded,
    )
    return NeuralData(
        source, batch_size=size.batch_size, coordinated_dropout=CoordinatedDropout(DROPOUT)
    )


def make_model(size: Size, spec: DataSpec, *, recursion: str) -> SequentialVAE:
    """A model with the package's defaults, but for the sizes."""
    from seqvae import SequentialVAE
    from seqvae.encoders import TrialGRU

    return SequentialVAE(
        spec,
        factor_dim=size.factor_dim,
        generator_dim=size.generator_dim,
        initial_condition_dim=size.initial_condition_dim,
        inferred_input_dim=size.inferred_input_dim,
        controller_dim=size.controller_dim,
        controller_encoder_dim=size.encoder_dim,
        encoder=partial(TrialGRU, hidden_dim=size.encoder_dim),
        dropout=DROPOUT,
        recursion=recursion,
    )
