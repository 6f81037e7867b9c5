"""Small trials for the tests, garbage for their padding, and parameters off their start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from seqvae.types import Batch, DataSpec, Latent


def toy_spec(
    *,
    num_neurons: int = 6,
    heldout: Sequence[int] = (),
    num_inputs: int = 0,
    num_time_bins: int = 8,
    num_forecast_bins: int = 0,
) -> DataSpec:
    """Facts about trials of a few bins of 20 ms."""
    return DataSpec(
        heldin=tuple(n for n in range(num_neurons) if n not in heldout),
        num_neurons=num_neurons,
        num_inputs=num_inputs,
        num_time_bins=num_time_bins,
        num_encoded_bins=num_time_bins - num_forecast_bins,
        bin_width=0.02,
    )


def toy_batch(
    spec: DataSpec,
    *,
    num_trials: int = 4,
    lengths: Sequence[int] | None = None,
    data_kind: str = "counts",
    seed: int = 0,
) -> Batch:
    """Random trials in float64, the padding 0."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_trials, spec.num_time_bins, spec.num_neurons)
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    ends = torch.tensor(lengths or [spec.num_time_bins] * num_trials)
    valid = torch.arange(spec.num_time_bins) < ends[:, None]
    target = {
        "counts": (2 * normal.abs()).round(),
        "binary": (normal > 0).double(),
        "nonnegative": normal.clamp(min=0),
        "real": normal,
    }[data_kind] * valid[..., None]
    inputs = torch.randn(*shape[:2], spec.num_inputs, generator=generator, dtype=torch.float64)
    return Batch(
        observed=target[:, : spec.num_encoded_bins, list(spec.heldin)],
        observed_mask=valid[:, : spec.num_encoded_bins, None].expand(-1, -1, spec.num_heldin),
        target=target,
        weight=valid[..., None].expand(shape).double(),
        inputs=inputs * valid[..., None],
        lengths=ends,
        trial=torch.arange(num_trials),
    )


def batch_around(
    observed: Tensor, *, mask: Tensor | None = None, lengths: Tensor | None = None
) -> Batch:
    """The batch of which an encoder sees ``observed``: all neurons held in, no bin forecast."""
    num_trials, num_bins = observed.shape[:2]
    lengths = torch.full((num_trials,), num_bins) if lengths is None else lengths
    valid = (torch.arange(num_bins) < lengths[:, None])[..., None].expand(observed.shape)
    return Batch(
        observed=observed,
        observed_mask=valid if mask is None else mask,
        target=observed,
        weight=valid.to(observed),
        inputs=observed[..., :0],
        lengths=lengths,
        trial=torch.arange(num_trials),
    )


def with_target(batch: Batch, target: Tensor, spec: DataSpec) -> Batch:
    """The batch with other activity; inference sees its held-in neurons in its encoded bins."""
    observed = target[:, : spec.num_encoded_bins, list(spec.heldin)]
    return replace(batch, observed=observed, target=target)


def with_garbage(batch: Batch, value: float = 37.0) -> Batch:
    """The batch with garbage at its padding."""
    padding = ~batch.time_mask[..., None]
    return replace(
        batch,
        observed=batch.observed.masked_fill(padding[:, : batch.observed.shape[1]], value),
        target=batch.target.masked_fill(padding, value),
        inputs=batch.inputs.masked_fill(padding, -value),
    )


def scramble(module: nn.Module, *, size: float = 0.3, seed: int = 0) -> None:
    """Move every parameter off its start, so that no path through the module is blocked by a 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(size * noise)


def valid_moments(latent: Latent) -> tuple[Tensor, Tensor]:
    """Mean and variance of a posterior, 0 at the steps that do not count."""
    moments = latent.posterior.mean, latent.posterior.variance
    if latent.mask is None:
        return moments
    return tuple(value * latent.mask[..., None] for value in moments)


def wrong_slopes(model: nn.Module, value: Callable[[], Tensor]) -> dict[str, tuple[float, float]]:
    """Compare the slope of a value along a random way through each parameter with differences.

    Returns:
        Where they differ, by the name of the parameter: what autograd says, and what differences.
    """
    model.zero_grad()
    value().backward()
    wrong, step = {}, 1e-5
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.grad is None:
                continue
            way = torch.randn_like(parameter)
            slope = float((parameter.grad * way).sum())
            ahead = float(_moved(parameter, step * way, value))
            behind = float(_moved(parameter, -step * way, value))
            differences = (ahead - behind) / (2 * step)
            if abs(slope - differences) > 1e-5 * (1 + abs(differences)):
                wrong[name] = (slope, differences)
    return wrong


def _moved(parameter: Tensor, by: Tensor, value: Callable[[], Tensor]) -> Tensor:
    former = parameter.clone()
    parameter.add_(by)
    found = value()
    parameter.copy_(former)
    return found
