"""Weights of an ensemble's members by how well their mixture predicts hidden entries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqvae.analysis.posterior import deterministic, trials_per_chunk
from seqvae.compute.progress import progress
from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.models import Mixture
from seqvae.types import Batch

ROUNDS = 5
"""In each of so many rounds another share of the entries is hidden."""
STREAM = 5
"""Sets the draw of the rounds apart from others of the same seed."""


def stacked_weights(
    model: Mixture, data: NeuralData, *, num_samples: int, seed: int
) -> Float[np.ndarray, " member"]:
    """Return the weights by which the members together best predict what they do not see.

    Of the validation trials each entry of a held-in neuron in an encoded bin is hidden from
    inference once, in one of five rounds, and predicted from the others. The weights maximise

        sum_i x_i log(sum_m w_m mu_im) - sum_m w_m mu_im        of counts, mu the posterior mean,
        sum_i log(sum_m w_m p_m(x_i))                           of other data,

    over all hidden entries i; both are concave [stacking: Wolpert 1992; of densities: Yao et al.
    2018]. Held-out neurons, forecast bins and test trials are not looked at.

    Args:
        model: the members, whatever their weights.
        data: those that the members were fitted to.
        num_samples: posterior samples.
        seed: of the rounds and the samples.

    Raises:
        InputError: without validation trials, or without a spike (an entry) in them.
    """
    if "val" not in data.split:
        raise InputError("weights: stacking needs validation trials, and the data have none")
    counts = model.observation.kind.counts_events
    trials, columns, targets = data.trials("val"), list[Tensor](), list[Tensor]()
    with deterministic(model, seed), progress(len(trials), work="stacking") as advance:
        for batch in data.batches(trials, trials_per_chunk(data.spec, num_samples)):
            batch = model.scored(batch.to(model.null_counts.device))
            rounds = _rounds(batch, seed)
            for number in range(ROUNDS):
                hidden = batch.observed_mask & (rounds == number)
                shown = replace(
                    batch,
                    observed=batch.observed.masked_fill(hidden, 0.0),
                    observed_mask=batch.observed_mask & ~hidden,
                )
                members = model.expectations(model(shown, num_samples), shown).members or {}
                heldin, num_encoded = list(data.spec.heldin), batch.observed.shape[1]
                values = [
                    model.observation.kind.clamp(part.mean) if counts else part.log_predictive
                    for part in members.values()
                ]
                columns.append(
                    torch.stack(
                        [
                            value[:, :num_encoded, heldin][hidden]
                            for value in values
                            if value is not None
                        ],
                        dim=-1,
                    )
                    .double()
                    .cpu()
                )
                targets.append(batch.observed[hidden].double().cpu())
            advance(len(batch))
    predicted, target = torch.cat(columns).numpy(), torch.cat(targets).numpy()
    if not (target.sum() if counts else len(target)):
        raise InputError(
            f"weights: stacking needs {'spikes' if counts else 'entries'} of held-in neurons in "
            "the validation trials, and there are none; leave the weights equal"
        )
    if counts:
        return best_weights(predicted, target, predicted.sum(axis=0))
    density = np.exp(predicted - predicted.max(axis=1, keepdims=True))
    return best_weights(density, np.ones(len(target)), np.zeros(density.shape[1]))


def best_weights(
    values: Float[np.ndarray, "entry member"],
    size: Float[np.ndarray, " entry"],
    cost: Float[np.ndarray, " member"],
) -> Float[np.ndarray, " member"]:
    """Return the weights w >= 0 of sum 1 that maximise sum_i n_i log(sum_m w_m v_im) - w . c.

    Args:
        values: v, positive.
        size: n, not negative.
        cost: c.
    """
    from scipy.optimize import minimize

    values, size = values[size > 0], size[size > 0]
    num_members, total = values.shape[1], size.sum()

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mean = np.maximum(values @ weights, np.finfo(float).tiny)
        gain = size @ np.log(mean) - weights @ cost
        return -gain / total, -((size / mean) @ values - cost) / total

    found = minimize(
        loss,
        np.full(num_members, 1 / num_members),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * num_members,
        constraints={
            "type": "eq",
            "fun": lambda weights: weights.sum() - 1,
            "jac": lambda weights: np.ones_like(weights),
        },
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    weights = np.clip(found.x, 0.0, None)
    return np.asarray(weights / weights.sum())


def _rounds(batch: Batch, seed: int) -> Int[Tensor, "batch encoded_time heldin"]:
    """Return in which round each entry is hidden: a function of the seed and the trial."""
    shape = tuple(batch.observed.shape[1:])
    draws = [
        np.random.default_rng([seed, STREAM, trial]).integers(ROUNDS, size=shape)
        for trial in batch.trial.tolist()
    ]
    return torch.from_numpy(np.stack(draws)).to(batch.observed.device)
