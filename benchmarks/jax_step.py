"""The training step in plain JAX, timed, and compared with the package's.

One jitted step whose buffers are donated, gradients by ``jax.grad``, the factorials of the
likelihood computed once, the best of several unrollings of the scans.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array, lax
from jax.scipy.special import gammaln
from jax_scan import Masks, Noise, Parameters, Trials, loss
from sizes import DROPOUT, Size, make_data, make_model
from worker import Turns, repeat

from seqvae.models import LatentVariableModel
from seqvae.objectives import bound

UNROLLS = (1, 4, 8)  # of the scans


class State(NamedTuple):
    """What a step changes."""

    parameters: Parameters
    mean: Parameters
    square: Parameters
    step: Array
    key: Array


def draw(key: Array, size: Size) -> tuple[Noise, Masks]:
    """Draw what a training step needs."""
    batch, encoded, bins = size.batch_size, size.num_encoded, size.num_bins
    keys = iter(jax.random.split(key, 7))

    def dropped(*shape: int) -> Array:
        count = math.prod(shape)
        words = jax.random.bits(next(keys), (-(-count // 2),))  # two entries each: 4 times as fast
        halves = lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[:count]
        return halves.reshape(shape) < round(DROPOUT * 2**16)

    def kept(*shape: int) -> Array:
        return jnp.where(dropped(*shape), 0.0, 1 / (1 - DROPOUT))

    noise = Noise(
        jax.random.normal(next(keys), (batch, size.initial_condition_dim)),
        jax.random.normal(next(keys), (bins, batch, size.inferred_input_dim)),
    )
    masks = Masks(
        hidden=dropped(encoded, batch, size.num_heldin),
        observed=kept(encoded, batch, size.num_heldin),
        encoding=kept(encoded, batch, 2 * size.encoder_dim),
        factors=kept(encoded, batch, size.factor_dim),
        states=kept(bins, batch, size.generator_dim),
    )
    return noise, masks


def take(trials: Trials, chosen: Array) -> Trials:
    """Return some of the trials."""
    return trials._replace(
        observed=trials.observed[:, chosen],
        target=trials.target[:, chosen],
        log_factorial=trials.log_factorial[:, chosen],
    )


def train_step(
    state: State, trials: Trials, chosen: Array, *, size: Size, unroll: int
) -> tuple[State, dict[str, Array]]:
    """One step: indexing, dropout, loss, gradients, clip by global norm, AdamW, terms."""
    key, own = jax.random.split(state.key)
    noise, masks = draw(own, size)
    objective = partial(loss, size=size, unroll=unroll)
    gradients, terms = jax.grad(objective, has_aux=True)(
        state.parameters, take(trials, chosen), noise, masks
    )
    norm = jnp.sqrt(sum(jnp.sum(g**2) for g in gradients.values()))
    shrink = jnp.minimum(1.0, 200.0 / (norm + 1e-6))
    step = state.step + 1
    parameters, means, squares = {}, {}, {}
    for name, parameter in state.parameters.items():
        gradient = gradients[name] * shrink
        means[name] = 0.9 * state.mean[name] + 0.1 * gradient
        squares[name] = 0.999 * state.square[name] + 0.001 * gradient**2
        mean, square = means[name] / (1 - 0.9**step), squares[name] / (1 - 0.999**step)
        decay = 0.1 if parameter.ndim > 1 else 0.0
        parameters[name] = parameter * (1 - 4e-3 * decay) - 4e-3 * mean / (jnp.sqrt(square) + 1e-8)
    return State(parameters, means, squares, step, key), terms


def converted(model: LatentVariableModel) -> Parameters:
    """Return the parameters of the torch model."""
    return {name: jnp.array(value.detach().numpy()) for name, value in model.named_parameters()}


def trials_of(size: Size, model: LatentVariableModel, counts: np.ndarray) -> Trials:
    """Lay out counts (trial, time, neuron), time first."""
    target = jnp.array(np.ascontiguousarray(counts.transpose(1, 0, 2)))
    return Trials(
        target[: size.num_encoded, :, : size.num_heldin],
        target,
        gammaln(target + 1),
        jnp.array(model.observed_mean.numpy()),
        jnp.array(model.observed_scale.numpy()),
    )


def measure(turns: Turns, size: Size, steps: int) -> None:
    """Hand over blocks of the training step with the unrolling that is fastest here."""
    data = make_data(size)
    model = make_model(size, data.spec, recursion="loop")
    model.initialize(data)
    trials = trials_of(size, model, data.recording.activity)
    num_trials = data.recording.num_trials
    random = np.random.default_rng(0)

    class Running:
        def __init__(self, unroll: int) -> None:
            self.step = jax.jit(
                partial(train_step, size=size, unroll=unroll), donate_argnames="state"
            )
            parameters = converted(model)
            mean, square = jax.tree.map(jnp.zeros_like, (parameters, parameters))
            self.state = State(parameters, mean, square, jnp.zeros(()), jax.random.key(0))

        def __call__(self) -> None:
            chosen = random.choice(num_trials, size.batch_size, replace=False)
            self.state, terms = self.step(self.state, trials, chosen)
            jax.block_until_ready((self.state, terms))

    def seconds(run: Running) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    candidates = {unroll: Running(unroll) for unroll in UNROLLS}
    rounds = [{unroll: seconds(run) for unroll, run in candidates.items()} for _ in range(6)]
    best = min(UNROLLS, key=lambda unroll: min(took[unroll] for took in rounds[1:]))  # 0: compiles
    repeat(turns, candidates[best], steps, note=f"scans unrolled by {best}")


def differences(size: Size, recursion: str) -> dict[str, float]:
    """How far the loss and its gradients are from the package's, relative, without dropout.

    Both models have the same weights and the same batch, and JAX takes the very noise of torch's
    samples. The difference of the gradients is the largest norm of a difference, in units of the
    largest norm of a gradient.
    """
    data = make_data(size, num_trials=size.batch_size)
    torch.manual_seed(0)
    model = make_model(size, data.spec, recursion=recursion)
    model.initialize(data)
    model.eval()
    batch = data.batch(np.arange(size.batch_size))
    output = model(batch)
    expected = -bound(output, batch).elbo().mean()
    expected.backward()

    noise = {}
    for name, latent in output.latents.items():
        posterior = latent.posterior
        noise[name] = ((latent.sample - posterior.mean) / posterior.stddev)[0].detach().numpy()
    path = noise.get("inferred_inputs", np.zeros((size.batch_size, size.num_bins, 0), "float32"))
    given = Noise(noise["initial_condition"], path.transpose(1, 0, 2))
    trials = trials_of(size, model, data.recording.activity)
    (value, _), gradients = jax.value_and_grad(
        partial(loss, size=size, unroll=1), has_aux=True
    )(converted(model), trials, given, None)  # fmt: skip

    norms = [parameter.grad.norm().item() for parameter in model.parameters()]
    apart = [
        np.linalg.norm(parameter.grad.numpy() - gradients[name])
        for name, parameter in model.named_parameters()
    ]
    return {
        "loss": abs(float(value) / expected.item() - 1),
        "gradients": float(max(apart)) / max(norms),
    }
