"""What is fitted where no model is named: one recipe, whose sizes follow from the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

from pytorch_lightning import Trainer
from torch.optim import AdamW

from seqvae.data import NeuralData
from seqvae.data.pieces import pieces
from seqvae.distributions.kinds import kind_of
from seqvae.errors import InputError
from seqvae.learning.gradient import GradientLearner
from seqvae.learning.learner import Learner, LearnerFactory, is_factory
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
    learner: Learner


def default_fit(
    data: NeuralData, *, scores_others: bool = False, max_epochs: int | None = None
) -> DefaultFit:
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
        max_epochs: another number of epochs; validations keep their share of it.
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
    suited = math.ceil(STEPS * larger**0.25 / steps_an_epoch)
    settings: dict[str, Any] = {"max_epochs": suited if max_epochs is None else max_epochs}
    validates = "val" in data.split
    if validates:
        share = LARGE_VALIDATIONS if is_large else VALIDATIONS
        if max_epochs is None:
            every = math.ceil(suited / share)
            settings["max_epochs"] = math.ceil(suited / every) * every
        else:
            every = max(1, (max_epochs if max_epochs > 0 else suited) // share)
        settings["check_val_every_n_epoch"] = every
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
    model: Any,
    data: NeuralData,
    learner: Learner | LearnerFactory | None = None,
    *,
    scores_others: bool = False,
) -> DefaultFit | None:
    """Return ``default_fit`` with what factories say otherwise; None for another model's.

    So whoever names ``NonlinearDynamics``, or a setting of how it is learned, need only say what
    shall differ. A learner that is built stands as it is.

    Args:
        model: factory of a model; None says nothing.
        data: the data to learn from.
        learner: a learner, or a factory of one; None says nothing.
        scores_others: as in ``default_fit``.

    Raises:
        InputError: for a factory whose settings have no names.
    """
    if not follows_rule(model):
        return None
    told = _told(learner) if is_factory(learner) else {}
    trainer = _told(told.get("trainer"))
    default = default_fit(data, scores_others=scores_others, max_epochs=trainer.get("max_epochs"))
    if isinstance(learner, Learner):
        default = default._replace(learner=learner)
    elif is_factory(learner):
        default = default._replace(learner=_completed(learner, default.learner))
    return default._replace(model=partial(default.model, **_told(model)))


def follows_rule(model: Any) -> bool:
    """Return whether no model, a class, or a factory of one is completed by ``completed_fit``."""
    return model is None or _class_of(model) is NonlinearDynamics


def _completed(factory: Any, default: Learner) -> Learner:
    """Build a learner; what a ``GradientLearner`` is not told is as the default is."""
    cls, told = _class_of(factory), dict(_told(factory))
    if not issubclass(cls, GradientLearner):
        learner: Learner = factory()
        return learner
    assert isinstance(default, GradientLearner)
    assert isinstance(default.trainer, partial)
    if "trainer" in told:
        of_trainer = default.trainer.keywords | dict(_told(told["trainer"]))
        told["trainer"] = partial(_class_of(told["trainer"]), **of_trainer)
    former = {field.name: getattr(default, field.name) for field in fields(default)}
    completed: Learner = cls(**former | told)
    return completed


def _class_of(factory: Any) -> Any:
    return factory.func if isinstance(factory, partial) else factory


def _told(factory: Any) -> Mapping[str, Any]:
    """Return what a factory says of what it makes.

    Raises:
        InputError: for values without a name.
    """
    if not isinstance(factory, partial):
        return {}
    if factory.args:
        name = getattr(factory.func, "__name__", "a factory")
        raise InputError(f"functools.partial of {name}: give its settings by name")
    return factory.keywords


def _rounded(value: float) -> float:
    """Return two digits, which a config shows as they are."""
    return float(f"{value:.2g}")
