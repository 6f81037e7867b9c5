"""What was given and is not read: told rather than dropped in silence."""

from __future__ import annotations

import inspect

import seqvae.models
from seqvae.data import NeuralData
from seqvae.learning.learner import Learner
from seqvae.models import LatentVariableModel, Model


def unread(model: Model, learner: Learner, data: NeuralData) -> list[str]:
    """Return a sentence for each thing that a fit was given and does not read.

    Args:
        model: the model to learn.
        learner: how it is learned.
        data: the data to learn from.
    """
    sentences = unread_by_model(model, data.spec.num_inputs)
    name = type(learner).__name__
    for setting in unread_settings(learner, data):
        sentences.append(f"{name} does not read data.{setting}: nothing comes of it")
    if "val" not in data.split and data.speckled_fraction > 0 and learner.selects:
        sentences.append(
            "data.speckled_fraction hides entries of validation trials, which are none"
        )
    return sentences


def unread_by_model(model: Model, num_inputs: int) -> list[str]:
    """Return a sentence for what the model does not read, however it is learned."""
    sentences = unread_inputs(type(model), num_inputs)
    penalized = isinstance(model, LatentVariableModel) and model.objective.recurrent_l2 > 0
    if penalized and not model.recurrent_kernels:
        name = type(model).__name__
        sentences.append(f"{name} has no recurrent weights: objective.recurrent_l2 is not read")
    return sentences


def unread_inputs(model_class: type[Model], num_inputs: int) -> list[str]:
    """Return a sentence if there are external inputs and the model does not read them."""
    if num_inputs == 0 or model_class.reads_inputs:
        return []
    classes = [cls for cls in vars(seqvae.models).values() if inspect.isclass(cls)]
    readers = sorted(cls.__name__ for cls in classes if issubclass(cls, Model) and cls.reads_inputs)
    return [
        f"{model_class.__name__} does not read the {num_inputs} external inputs of the data; "
        f"{', '.join(readers)} do"
    ]


def unread_settings(learner: Learner, data: NeuralData) -> list[str]:
    """Return the names of the settings of the data that were given and are not read."""
    given = {
        "coordinated_dropout": data.coordinated_dropout is not None,
        "speckled_fraction": data.speckled_fraction > 0,
    }
    return [name for name, is_given in given.items() if is_given and name not in learner.reads]
