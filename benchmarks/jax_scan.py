"""The sequential VAE and its loss in plain JAX, its recursions by ``lax.scan``.

Arrays are time-major; input projections of all steps are one product outside the scans; noise and
masks are drawn beforehand. Parameters go by their torch names, so that weights can be compared.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from sizes import DROPOUT, Size

MIN_STD = 1e-3

Parameters = dict[str, Array]


class Trials(NamedTuple):
    """Trials as the model sees them, time first.

    Attributes:
        observed: (encoded_time, batch, heldin) counts.
        target: (time, batch, neuron) counts.
        log_factorial: log target!.
        mean: (heldin,) what the counts are centred at.
        scale: and divided by.
    """

    observed: Array
    target: Array
    log_factorial: Array
    mean: Array
    scale: Array


class Noise(NamedTuple):
    """Standard normal draws: (batch, latent) and (time, batch, inferred)."""

    initial_condition: Array
    inferred_inputs: Array


class Masks(NamedTuple):
    """Dropout: 0, or 1 / P(kept), for each entry; ``hidden`` is coordinated dropout's."""

    hidden: Array
    observed: Array
    encoding: Array
    factors: Array
    states: Array


def gru_step(projected: Array, recurrent: Array, state: Array) -> Array:
    """One step of torch's GRU: n + z (state - n), n = tanh(i_n + r h_n)."""
    input_r, input_z, input_n = jnp.split(projected, 3, axis=-1)
    state_r, state_z, state_n = jnp.split(recurrent, 3, axis=-1)
    reset, update = jax.nn.sigmoid(input_r + state_r), jax.nn.sigmoid(input_z + state_z)
    candidate = jnp.tanh(input_n + reset * state_n)
    return candidate + update * (state - candidate)


def gru(
    projected: Array,
    initial: Array,
    kernel: Array,
    bias: Array,
    *,
    reverse: bool = False,
    unroll: int,
) -> tuple[Array, Array]:
    """Run a GRU over projected inputs (time, batch, gates); the last state and all states."""

    def step(state: Array, inputs: Array) -> tuple[Array, Array]:
        state = gru_step(inputs, state @ kernel + bias, state)
        return state, state

    return lax.scan(step, initial, projected, reverse=reverse, unroll=unroll)


def encode(
    parameters: Parameters, prefix: str, inputs: Array, *, unroll: int
) -> list[tuple[Array, Array]]:
    """Read (time, batch, heldin) forward and backward; for each, last state and all states."""
    found = []
    for direction, suffix in enumerate(("l0", "l0_reverse")):
        w_input, w_state, b_input, b_state = (
            parameters[f"{prefix}.gru.{name}_{suffix}"]
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        initial = parameters[f"{prefix}.initial_state"][direction]
        initial = jnp.broadcast_to(initial, (inputs.shape[1], initial.shape[0]))
        found.append(
            gru(
                inputs @ w_input.T + b_input,
                initial,
                w_state.T,
                b_state,
                reverse=direction == 1,
                unroll=unroll,
            )
        )
    return found


def loss(
    parameters: Parameters,
    trials: Trials,
    noise: Noise,
    masks: Masks | None,
    *,
    size: Size,
    unroll: int,
) -> tuple[Array, dict[str, Array]]:
    """-ELBO in nats per trial, and its terms; no dropout without masks."""
    p = parameters
    num_encoded, num_bins = size.num_encoded, size.num_bins
    observed = (trials.observed - trials.mean) / trials.scale
    if masks is not None:
        observed = jnp.where(masks.hidden, 0, observed / (1 - DROPOUT)) * masks.observed

    ends = [end for end, _ in encode(p, "encoder.gru", observed, unroll=unroll)]
    mean, raw_std = jnp.split(
        jnp.concatenate(ends, -1) @ p["encoder.head.linear.weight"].T
        + p["encoder.head.linear.bias"],
        2,
        axis=-1,
    )
    std = MIN_STD + jax.nn.softplus(raw_std)
    prior = "initial_condition_prior"
    kl = {
        "initial_condition": gaussian_kl(
            mean, std, p[f"{prior}.mean"], jnp.exp(p[f"{prior}.log_std"])
        ).sum(-1)
    }
    initial_condition = mean + std * noise.initial_condition
    state = initial_condition @ p["initial_state.weight"].T + p["initial_state.bias"]
    state = jnp.clip(state, -5.0, 5.0)

    w_factors = p["decoder.factors.weight"]
    w_factors = (w_factors / jnp.linalg.norm(w_factors, axis=-1, keepdims=True)).T
    b_input, b_state = p["generator.cell.bias_ih"], p["generator.cell.bias_hh"]
    w_state = p["generator.cell.weight_hh"].T
    if size.inferred_input_dim == 0:
        projected = jnp.broadcast_to(b_input, (num_bins, state.shape[0], b_input.shape[0]))
        _, states = gru(projected, state, w_state, b_state, unroll=unroll)
        factors = (states if masks is None else states * masks.states) @ w_factors
    else:
        encoding = shifted(
            *(states for _, states in encode(p, "controller_encoder", observed, unroll=unroll))
        )
        controlled = control(
            p, state, encoding, noise, masks, w_factors=w_factors, size=size, unroll=unroll
        )
        decay, prior_std, innovation_std = ar1(p, size)
        drawn, means, stds = controlled.drawn, controlled.mean, controlled.std
        prior_mean = jnp.concatenate([jnp.zeros_like(drawn[:1]), decay * drawn[:-1]])
        kl["inferred_inputs"] = (
            gaussian_kl(means[:1], stds[:1], 0.0, prior_std).sum((0, 2))
            + gaussian_kl(means[1:], stds[1:], prior_mean[1:], innovation_std).sum((0, 2))
        )  # fmt: skip

        def forecast(last: Array, white: Array) -> tuple[Array, Array]:
            new = decay * last + innovation_std * white
            return new, new

        _, predicted = lax.scan(forecast, drawn[-1], noise.inferred_inputs[num_encoded:])
        projected = predicted @ p["generator.cell.weight_ih"].T + b_input
        _, states = gru(projected, controlled.state, w_state, b_state, unroll=unroll)
        states = states if masks is None else states * masks.states[num_encoded:]
        factors = jnp.concatenate([controlled.factors, states @ w_factors])

    log_rate = factors @ p["observation.readout.weight"].T + p["observation.readout.bias"]
    log_prob = trials.target * log_rate - jnp.exp(log_rate) - trials.log_factorial
    if masks is not None:
        weight = jnp.ones_like(log_prob)
        weight = weight.at[:num_encoded, :, : size.num_heldin].set(masks.hidden / DROPOUT)
        log_prob = log_prob * weight
    log_likelihood = log_prob.sum((0, 2)).mean()
    terms = {"log_likelihood": log_likelihood} | {name: kl[name].mean() for name in kl}
    return sum(kl.values(), jnp.zeros(())).mean() - log_likelihood, terms


class Controlled(NamedTuple):
    """The encoded bins of a run of the decoder, and the generator's last state."""

    factors: Array
    drawn: Array
    mean: Array
    std: Array
    state: Array


def control(
    p: Parameters,
    state: Array,
    encoding: Array,
    noise: Noise,
    masks: Masks | None,
    *,
    w_factors: Array,
    size: Size,
    unroll: int,
) -> Controlled:
    """Run controller and generator over the encoded bins, as one scan."""
    w_encoding, w_feedback = jnp.split(
        p["decoder.controller.weight_ih"].T, [encoding.shape[-1]], axis=0
    )
    w_controller = p["decoder.controller.weight_hh"].T
    b_controller = p["decoder.controller.bias_hh"]
    w_posterior, b_posterior = p["decoder.posterior.weight"].T, p["decoder.posterior.bias"]
    w_input, b_input = p["generator.cell.weight_ih"].T, p["generator.cell.bias_ih"]
    w_state, b_state = p["generator.cell.weight_hh"].T, p["generator.cell.bias_hh"]
    if masks is not None:
        encoding = encoding * masks.encoding
    projected = encoding @ w_encoding + p["decoder.controller.bias_ih"]
    controller = jnp.broadcast_to(
        p["decoder.controller_start"], (state.shape[0], size.controller_dim)
    )
    num_encoded = size.num_encoded
    dropout = None if masks is None else (masks.factors, masks.states[:num_encoded])

    def step(carry, given):
        controller, state, factors = carry
        projected, white, dropout = given
        if dropout is not None:
            factors = factors * dropout[0]
        controller = gru_step(
            projected + factors @ w_feedback, controller @ w_controller + b_controller, controller
        )
        mean, raw_std = jnp.split(controller @ w_posterior + b_posterior, 2, axis=-1)
        std = MIN_STD + jax.nn.softplus(raw_std)
        drawn = mean + std * white
        state = gru_step(drawn @ w_input + b_input, state @ w_state + b_state, state)
        factors = (state if dropout is None else state * dropout[1]) @ w_factors
        return (controller, state, factors), (factors, drawn, mean, std)

    (_, state, _), (factors, drawn, mean, std) = lax.scan(
        step,
        (controller, state, state @ w_factors),
        (projected, noise.inferred_inputs[:num_encoded], dropout),
        unroll=unroll,
    )
    return Controlled(factors, drawn, mean, std, state)


def shifted(forward: Array, backward: Array) -> Array:
    """e_t: the forward state of t - 1 beside the backward state of t + 1."""
    zero = jnp.zeros_like(forward[:1])
    return jnp.concatenate(
        [jnp.concatenate([zero, forward[:-1]]), jnp.concatenate([backward[1:], zero])], -1
    )


def ar1(p: Parameters, size: Size) -> tuple[Array, Array, Array]:
    """Decay, stationary and innovation standard deviation of the prior of inferred inputs."""
    log_decay = -size.bin_width / jnp.exp(p["inferred_input_prior.log_time_constant"])
    std = jnp.exp(p["inferred_input_prior.log_std"])
    return jnp.exp(log_decay), std, std * jnp.sqrt(-jnp.expm1(2 * log_decay))


def gaussian_kl(mean_q: Array, std_q: Array, mean_p: Array | float, std_p: Array) -> Array:
    """KL(N(mean_q, std_q^2) || N(mean_p, std_p^2)), elementwise."""
    double = 2 * (jnp.log(std_q) - jnp.log(std_p))
    return 0.5 * (jnp.expm1(double) - double + ((mean_q - mean_p) / std_p) ** 2)
