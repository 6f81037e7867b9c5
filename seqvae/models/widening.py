"""A fitted model widened by the neurons of another session, all else as it was."""

from __future__ import annotations

import torch
from torch import Tensor

from seqvae.data import NeuralData
from seqvae.encoders import LinearReadIn
from seqvae.errors import InputError
from seqvae.models.base import Model
from seqvae.models.latent_variable import LatentVariableModel
from seqvae.models.linear_beginning import linear_along, readout_at
from seqvae.observations import GeneralizedLinear


def shared_names(alone: Model, wide: Model) -> list[str]:
    """Return the names of the weights whose shape does not depend on the number of neurons.

    Args:
        alone: a model of the new session.
        wide: the same model of all sessions.
    """
    sizes = {name: weight.shape for name, weight in wide.state_dict().items()}
    return [name for name, weight in alone.state_dict().items() if weight.shape == sizes[name]]


@torch.no_grad()
def take_shared(alone: Model, fitted: Model, names: list[str]) -> None:
    """Take from a fitted model all that does not depend on the neurons."""
    own, others = alone.state_dict(), fitted.state_dict()
    for name in names:
        if own[name].shape != others[name].shape:
            raise InputError(
                f"run: weight {name} has shape {tuple(others[name].shape)}, and "
                f"{tuple(own[name].shape)} with the new session; give data of the same inputs"
            )
        own[name].copy_(others[name])


@torch.no_grad()
def widen(wide: Model, fitted: Model, alone: Model) -> None:
    """Put the neurons of a new session after those of a fitted model.

    Of each weight the axis of the neurons is the one that differs; all else is the fitted model's.

    Args:
        wide: the model of all sessions; its weights are replaced.
        fitted: the model of the former sessions.
        alone: of the new one, its shared weights those of ``fitted``.
    """
    before, after = fitted.state_dict(), alone.state_dict()
    for name, weight in wide.state_dict().items():
        first, second = before[name], after[name]
        differ = [axis for axis, size in enumerate(weight.shape) if size != second.shape[axis]]
        if differ:
            weight.copy_(torch.cat([first, second.to(first)], dim=differ[0]))
        else:
            weight.copy_(first)


def begin_along(
    alone: Model,
    data: NeuralData,
    trials: Tensor,
    *,
    factors: Tensor,
    scale: Tensor,
    read: dict[str, Tensor],
) -> None:
    """Begin readout and read-ins of new neurons at what is known of each trial's path.

    The readout is a regression on the factors, with the likelihood of the data and a ridge, and a
    ``LinearReadIn`` a ridge regression on what former sessions read. Both are matched averages, the
    same for all trials of a condition. The ridge is in units of what factors do in single trials:
    averages of trials that are not alike vary little, and then readouts begin near the mean rates.

    Args:
        alone: the model of the new session.
        data: of the new session.
        trials: its training trials that have a match.
        factors: (trial, time, factor) of each of them.
        scale: (factor,) standard deviation in single trials.
        read: (trial, time, read_in) what each read-in is to read, by its name in the model.
    """
    observation = alone.observation
    if isinstance(observation, GeneralizedLinear):
        scale = torch.where(scale > 1e-6 * scale.max(), scale, torch.inf)
        linear = linear_along(alone, data, trials.numpy(), factors / scale)
        if linear is not None:
            readout = readout_at(observation, linear)
            with torch.no_grad():
                observation.readout.weight.copy_(readout.weight / scale)
                observation.readout.bias.copy_(readout.bias)
            alone.start_inference()
    for name, module in alone.named_modules():
        if isinstance(module, LinearReadIn):
            assert isinstance(alone, LatentVariableModel)
            _begin_read_in(alone, module, data, trials, read[name])


def _begin_read_in(
    alone: LatentVariableModel,
    read_in: LinearReadIn,
    data: NeuralData,
    trials: Tensor,
    target: Tensor,
) -> None:
    """Regress what is to be read on averages of the new session over trials that are alike."""
    batch = alone.scored(data.batch(trials.numpy()))
    observed = alone.standardized(batch).double()
    target = target[:, : observed.shape[1]].double()
    groups = {tuple(one.flatten().tolist()): [] for one in target}  # type: ignore[var-annotated]
    for trial, one in enumerate(target):
        groups[tuple(one.flatten().tolist())].append(trial)
    x = torch.cat([observed[some].mean(0) for some in groups.values()])
    y = torch.cat([target[some].mean(0) for some in groups.values()])
    noise = torch.cat([observed[some].var(0, correction=0) / len(some) for some in groups.values()])
    square = x.mT @ x + (noise.sum(0) + 1e-3 * len(x)).diag()
    read_in.start(torch.linalg.solve(square, x.mT @ y).to(read_in.weight))
