"""What is fitted where no model is named: one recipe, whose sizes follow from the data."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

from pytorch_lightning import Trainer
from torch.optim import AdamW

from seqvae.data import NeuralData
from seqvae.data.pieces import pieces
from seqvae.distributions.kinds import kind_of
from seqvae.learning.gradient import GradientLearner
from seqvae.models import NonlinearDynamics
from seqvae.observations import Gaussian, Poisson

LATENT_DIM = 8
LARGE_LATENT_DIM = 12
LARGE_BINS = 10_000
"""Training bins, over all trials, from which the larger size is taken."""

SMALL_BINS = 3000
"""Training bins, beyond which weight decay and dropout fall, and the number of steps grows."""

WEIGHT_DECAY = 0.2
DROPOUT = 0.4

STEPS = 800
VALIDATIONS, LARGE_VALIDATIONS = 2, 40
PATIENCE = 20
AVERAGE_WEIGHTS = 0.98


class DefaultFit(NamedTuple):
    """A model and how it is learned, as ``fit`` takes them."""

    model: partial[NonlinearDynamics]
    learner: GradientLearner


def default_fit(data: NeuralData, *, scores_others: bool = False) -> DefaultFit:
    """Return what to fit to data: ``NonlinearDynamics``, and a learner that averages weights.

    Counts are read by a ``Poisson``, other data by a ``Gaussian`` model. Of the training trials and
    their bins follow, by rule:

    - the size, 8 latents, and 12 from 10,000 bins on, never more than the held-in neurons;
    - weight decay 0.2, and in proportion to (bins / 3000)^-1/2 beyond 3000 bins: what holds a
      hundred trials from over-fitting would starve a thousand;
    - dropout of the readout 0.4, and in proportion to 3000 / bins beyond 3000 bins: it holds a
      hundred trials from over-fitting, and keeps the readout of a thousand from what it could
      learn;
    - epochs for 800 optimiser steps, and in proportion to (bins / 3000)^1/4 beyond 3000 bins. Of
      these, validation trials choose: half or all, where there are few, as among many steps they
      would pick one by luck; from 10,000 bins on one of some 40, and learning ends after 20 without
      improvement;
    - an average of the weights over some 50 steps is what is scored and kept;
    - where other trials are kept for the scores, ``refit`` learns from the validation trials, too,
      once they have chosen, by the bound of all neurons; else they are what is
      scored, and the bound of the held-in neurons chooses.

    Args:
        data: the data to learn from.
        scores_others: whether trials are scored that are none of these, as by ``crossvalidate``.
    """
    recording, num_trials = data.recording, len(data.trials("train"))
    num_bins = num_trials * data.spec.num_time_bins
    counts = kind_of(piece.values for piece in pieces(recording)).counts_events
    is_large = num_bins >= LARGE_BINS
    size = LARGE_LATENT_DIM if is_large else LATENT_DIM
    larger = max(1.0, num_bins / SMALL_BINS)
    decay = WEIGHT_DECAY / math.sqrt(larger)
    model = partial(
        NonlinearDynamics,
        latent_dim=min(size, data.spec.num_heldin),
        dropout=_rounded(DROPOUT / larger),
        observation=Poisson if counts else Gaussian,
        optimizer=partial(AdamW, lr=5e-3, weight_decay=_rounded(decay)),
    )
    steps_an_epoch = math.ceil(num_trials / data.batch_size)
    max_epochs = math.ceil(STEPS * larger**0.25 / steps_an_epoch)
    settings: dict[str, Any] = {"max_epochs": max_epochs}
    validates = "val" in data.split
    if validates:
        every = max_epochs / (LARGE_VALIDATIONS if is_large else VALIDATIONS)
        settings["check_val_every_n_epoch"] = math.ceil(every)
        settings["max_epochs"] = math.ceil(max_epochs / math.ceil(every)) * math.ceil(every)
    scores_others = validates and (scores_others or "test" in data.split)
    learner = GradientLearner(
        partial(Trainer, **settings),
        select="val/elbo" if scores_others else "val/heldin_elbo",
        patience=PATIENCE if validates else None,
        refit=scores_others,
        average_weights=AVERAGE_WEIGHTS,
    )
    return DefaultFit(model, learner)


def completed_fit(
    model: Any, data: NeuralData, *, scores_others: bool = False
) -> DefaultFit | None:
    """Return ``default_fit`` with what a factory says otherwise; None for another model's.

    So whoever names ``NonlinearDynamics`` gets it as it suits the data, and need only say what
    shall differ.

    Args:
        model: factory of a model.
        data: the data to learn from.
        scores_others: as in ``default_fit``.
    """
    if not follows_rule(model):
        return None
    default = default_fit(data, scores_others=scores_others)
    changes = model.keywords if isinstance(model, partial) else {}
    return default._replace(model=partial(default.model, **changes))


def follows_rule(model: Any) -> bool:
    """Return whether a class of models, or a factory of one, is completed by ``completed_fit``."""
    return (model.func if isinstance(model, partial) else model) is NonlinearDynamics


def _rounded(value: float) -> float:
    """Return two digits, which a config shows as they are."""
    return float(f"{value:.2g}")
