from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.optim import AdamW

from seqvae.data import NeuralData
from seqvae.data.sources import Lorenz
from seqvae.distributions import Delta, PoissonLogRate, kl_terms
from seqvae.encoders import BinGRU, DeltaHead, TrialGRU
from seqvae.errors import InputError
from seqvae.models import SequentialVAE
from seqvae.nn.recurrent import shift
from seqvae.objectives import bound, importance_weighted_bound, log_likelihood
from seqvae.observations import Bernoulli, Gaussian, NegativeBinomial
from seqvae.priors import AR1, IIDNormal
from seqvae.types import Batch, Output
from toy import scramble, toy_batch, toy_spec, valid_moments, with_garbage, with_target

LENGTHS = [8, 3, 6, 8]
SPEC = toy_spec(heldout=(1, 4), num_forecast_bins=2, num_inputs=2)


def make_model(spec=SPEC, **options) -> SequentialVAE:
    torch.manual_seed(0)
    sizes = {
        "factor_dim": 4,
        "generator_dim": 7,
        "initial_condition_dim": 3,
        "inferred_input_dim": 2,
        "controller_dim": 5,
        "controller_encoder_dim": 6,
        "dropout": 0.0,
    }
    model = SequentialVAE(spec, **{**sizes, **options}).double()
    scramble(model)
    return model


def answer(model: SequentialVAE, batch: Batch, num_samples: int = 2, seed: int = 1) -> Output:
    torch.manual_seed(seed)
    return model(batch, num_samples)


KINDS = pytest.mark.parametrize(
    "options",
    [
        {},
        {"inferred_input_prior": IIDNormal, "controller_lag": 0},
        {"causal": True, "encoder": partial(TrialGRU, num_bins=2)},
        {"inferred_input_dim": 0},
    ],
    ids=["default", "iid", "causal", "autonomous"],
)


@KINDS
def test_output_has_the_axes_of_the_vocabulary(options):
    output = answer(make_model(**options), toy_batch(SPEC))
    assert output.latents["initial_condition"].sample.shape == (2, 4, 3)
    assert output.factors.shape == (2, 4, 8, 4)
    assert output.emission.batch_shape == (2, 4, 8, 6)
    if options.get("inferred_input_dim") == 0:
        assert set(output.latents) == {"initial_condition"}
    else:
        assert output.latents["inferred_inputs"].sample.shape == (2, 4, 8, 2)


@KINDS
def test_garbage_in_the_padding_changes_nothing(options):
    model, batch = make_model(**options), toy_batch(SPEC, lengths=LENGTHS)
    clean, dirty = answer(model, batch), answer(model, with_garbage(batch))
    close = partial(torch.testing.assert_close, rtol=0, atol=1e-6)
    for name, latent in clean.latents.items():
        close(valid_moments(dirty.latents[name]), valid_moments(latent))
        close(kl_terms(dirty.latents[name]), kl_terms(latent))
    close(log_likelihood(dirty, with_garbage(batch)), log_likelihood(clean, batch))
    assert log_likelihood(clean, batch).isfinite().all()


@KINDS
def test_padded_and_forecast_steps_have_no_kl(options):
    batch = toy_batch(SPEC, lengths=LENGTHS)
    output = answer(make_model(**options), batch)
    assert (kl_terms(output.latents["initial_condition"]) > 0).all()
    if "inferred_inputs" not in output.latents:
        return
    counted = (kl_terms(output.latents["inferred_inputs"]) != 0).all(-1)
    encoded = batch.time_mask & (torch.arange(8) < SPEC.num_encoded_bins)
    assert torch.equal(counted, encoded.expand(2, -1, -1))


def test_forecast_inputs_follow_the_prior():
    spec = toy_spec(num_time_bins=200, num_forecast_bins=198)
    model = make_model(spec, inferred_input_prior=partial(AR1, time_constant=0.1, std=0.7))
    path = answer(model, toy_batch(spec), 50).latents["inferred_inputs"].sample[:, :, 50:].detach()
    prior = model.inferred_input_prior((200, 2), spec.bin_width)
    torch.testing.assert_close(path.std((0, 1, 2)), prior.stationary_std, rtol=0.1, atol=0)
    decay = (path[:, :, 1:] * path[:, :, :-1]).mean((0, 1, 2)) / path.square().mean((0, 1, 2))
    torch.testing.assert_close(decay, prior.decay, rtol=0.1, atol=0)


@KINDS
def test_heldout_counts_and_forecast_bins_do_not_reach_the_posterior(options):
    model, batch = make_model(**options), toy_batch(SPEC)
    before = answer(model, batch)
    hidden = batch.target.clone()
    hidden[:, :, [1, 4]] += 3
    hidden[:, 6:] += 5
    after = answer(model, with_target(batch, hidden, SPEC))
    for name, latent in before.latents.items():
        for one, other in zip(
            valid_moments(latent), valid_moments(after.latents[name]), strict=True
        ):
            assert torch.equal(one, other)
    assert torch.equal(before.emission.mean, after.emission.mean)
    hidden[:, 1, 0] += 1
    seen = answer(model, with_target(batch, hidden, SPEC))
    for name, latent in before.latents.items():
        assert not torch.equal(latent.posterior.mean, seen.latents[name].posterior.mean)


def inputs_that_know(model: SequentialVAE, changed: int) -> list[int]:
    """The bins t at which q(u_t) changes with the counts of one bin, noise held fixed."""
    batch = toy_batch(model.spec)
    target = batch.target.clone()
    target[:, changed] += 2
    paths = [answer(model, each) for each in (batch, with_target(batch, target, model.spec))]
    one, other = (path.latents["inferred_inputs"].posterior for path in paths)
    change = (one.mean - other.mean).abs() + (one.stddev - other.stddev).abs()
    return (change.amax((0, 1, 3)) > 0).nonzero().flatten().tolist()


@pytest.mark.parametrize("lag", [0, 1, 3])
@pytest.mark.parametrize("changed", [2, 5, 9])
def test_causal_inputs_know_no_bin_after_t_minus_lag(lag: int, changed: int):
    spec = toy_spec(num_time_bins=10)
    model = make_model(spec, causal=True, controller_lag=lag, encoder=partial(TrialGRU, num_bins=2))
    assert inputs_that_know(model, changed) == list(range(min(changed + lag, 10), 10))


def test_a_causal_model_needs_a_causal_start():
    with pytest.raises(InputError, match="reads only the first bins"):
        make_model(causal=True)
    spec = toy_spec(num_time_bins=10)
    model = make_model(spec, causal=True, encoder=partial(TrialGRU, num_bins=4))
    assert inputs_that_know(model, 4) == list(range(5, 10))
    assert inputs_that_know(model, 3) == list(range(10))


def test_a_bidirectional_model_knows_the_future():
    model = make_model(toy_spec(num_time_bins=10), encoder=partial(TrialGRU, num_bins=2))
    assert inputs_that_know(model, 8) == list(range(10))


def test_lag_separates_both_directions():
    """With lag 2 e_t holds the forward state of t - 2 and the backward state of t + 2."""
    states = torch.stack([torch.arange(1.0, 7.0), torch.arange(10.0, 70.0, 10.0)], dim=1)[None]
    shifted = shift(states, 2, 2)[0]
    assert shifted[:, 0].tolist() == [0, 0, 1, 2, 3, 4]
    assert shifted[:, 1].tolist() == [30, 40, 50, 60, 0, 0]
    assert shift(states[..., :1], 2, 1)[0, :, 0].tolist() == [0, 0, 1, 2, 3, 4]
    assert torch.equal(shift(states, 0, 2), states)
    assert shift(states, 9, 2).shape == states.shape
    assert not shift(states, 9, 2).any()


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_lag_hides_the_bins_around_t_from_the_controller(lag: int):
    """Of e_t only; the controller remembers, so the bins before t - lag reach u_t."""
    spec = toy_spec(num_time_bins=10)
    model, batch = make_model(spec, controller_lag=lag), toy_batch(toy_spec(num_time_bins=10))
    encoder = model.controller_encoder
    states = encoder(batch.observed, batch.lengths).states
    target = batch.target.clone()
    target[:, 5] += 2
    other = encoder(target, batch.lengths).states
    change = shift(states, lag, 2) - shift(other, lag, 2)
    forward, backward = (part.abs().amax((0, 2)) > 0 for part in change.chunk(2, dim=-1))
    assert forward.tolist() == [t - lag >= 5 for t in range(10)]
    assert backward.tolist() == [t + lag <= 5 for t in range(10)]


@KINDS
def test_external_inputs_reach_the_rates_from_their_bin_on(options):
    model, batch = make_model(**options), toy_batch(SPEC)
    pushed = batch.inputs.clone()
    pushed[:, 3] += 1
    change = (
        answer(model, batch).emission.mean
        - answer(model, replace(batch, inputs=pushed)).emission.mean
    )
    assert (change.abs().amax((0, 1, 3)) > 0).tolist() == [t >= 3 for t in range(8)]


def test_state_is_bounded_by_the_clip():
    states = []
    model = make_model(state_clip=2.0, recursion="loop")
    with torch.no_grad():
        model.initial_state.weight *= 1000
    model.generator.register_forward_hook(lambda module, inputs, state: states.append(state))
    model.generator.register_forward_pre_hook(lambda module, inputs: states.append(inputs[1]))
    answer(model, toy_batch(SPEC))
    assert states[0].abs().max() == 2.0
    assert all((state.abs() <= 2.0).all() for state in states)


def test_factor_rows_have_unit_norm():
    states = []
    model = make_model(recursion="loop")
    model.generator.register_forward_hook(lambda module, inputs, state: states.append(state))
    factors = answer(model, toy_batch(SPEC)).factors
    states = torch.stack(states, dim=2)
    kernel = torch.linalg.lstsq(states.flatten(0, 2), factors.flatten(0, 2)).solution
    torch.testing.assert_close(kernel.norm(dim=0), torch.ones(4).double())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("factor_dim", 0),
        ("generator_dim", 0),
        ("initial_condition_dim", 0),
        ("inferred_input_dim", -1),
        ("controller_lag", -1),
    ],
)
def test_impossible_sizes_are_refused(name: str, value: int):
    with pytest.raises(InputError, match=f"{name} must be at least .*, got {value}"):
        make_model(**{name: value})


def test_an_encoder_of_bins_is_refused():
    with pytest.raises(InputError, match="BinGRU answers with one latent a time bin"):
        make_model(encoder=BinGRU)(toy_batch(SPEC))


@pytest.mark.parametrize("observation", [Bernoulli, Gaussian, NegativeBinomial])
def test_any_observation_model_is_learned_by_the_same_bound(observation):
    model = make_model(observation=observation)
    batch = toy_batch(SPEC, data_kind=observation.kind.name)
    assert bound(answer(model, batch), batch).elbo().isfinite().all()
    assert importance_weighted_bound(answer(model, batch), batch).isfinite().all()


def test_a_point_for_the_initial_condition_has_no_kl():
    model, batch = make_model(encoder=partial(TrialGRU, head=DeltaHead)), toy_batch(SPEC)
    output = answer(model, batch)
    assert isinstance(output.latents["initial_condition"].posterior, Delta)
    terms = bound(output, batch)
    assert not terms.kl["initial_condition"].any()
    assert (terms.kl["inferred_inputs"] > 0).all()


@KINDS
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_gradient_reaches_every_parameter(options, dropout):
    model, batch = make_model(dropout=dropout, **options), toy_batch(SPEC, lengths=LENGTHS)
    assert model.training
    (-bound(answer(model, batch, 3), batch).elbo().mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_dropout_acts_in_training_only():
    model, batch = make_model(dropout=0.5), toy_batch(SPEC)

    def start() -> torch.Tensor:
        return model(batch).latents["initial_condition"].posterior.mean

    assert not torch.equal(start(), start())
    model.eval()
    assert torch.equal(start(), start())


def test_recurrent_kernels_are_those_of_generator_and_controller():
    model = make_model()
    shapes = [tuple(kernel.shape) for kernel in model.recurrent_kernels]
    assert shapes == [(21, 7), (15, 5)]
    assert [tuple(k.shape) for k in make_model(inferred_input_dim=0).recurrent_kernels] == [(21, 7)]


def test_new_trials_change_with_the_seed_and_have_no_kl():
    model = make_model()
    inputs = torch.randn(5, 8, 2, dtype=torch.float64)

    def draw(seed: int) -> Output:
        torch.manual_seed(seed)
        return model.sample(5, inputs)

    assert draw(0).factors.shape == (1, 5, 8, 4)
    assert draw(0).emission.sample().shape == (1, 5, 8, 6)
    assert torch.equal(draw(0).factors, draw(0).factors)
    assert not torch.equal(draw(0).factors, draw(1).factors)
    for latent in draw(0).latents.values():
        assert not kl_terms(latent).any()


def test_new_trials_need_the_external_inputs_of_the_model():
    with pytest.raises(InputError, match="inputs must be given to sample"):
        make_model().sample(5)


def test_new_trials_have_the_moments_of_the_prior():
    spec = toy_spec(num_time_bins=30)
    model = make_model(spec, inferred_input_prior=partial(AR1, time_constant=0.05, std=0.5))
    torch.manual_seed(0)
    with torch.no_grad():
        latents = model.sample(2000).latents
        start = model.initial_condition_prior((3,), spec.bin_width)
        prior = model.inferred_input_prior((30, 2), spec.bin_width)
    path, first = latents["inferred_inputs"].sample[0], latents["initial_condition"].sample[0]
    close = partial(torch.testing.assert_close, rtol=0.05)
    close(first.mean(0), start.mean, atol=0.1)
    close(first.std(0), start.stddev, atol=0)
    close(path.mean(0), torch.zeros(30, 2).double(), atol=0.1)
    # the process is stationary from the first bin on
    torch.testing.assert_close(path.std(0), prior.stddev, rtol=0.1, atol=0)
    for lag in (1, 2, 4):
        product = (path[:, lag:] * path[:, :-lag]).mean((0, 1))
        close(product, prior.decay**lag * prior.stationary_std**2, atol=0.01)


@pytest.mark.slow
def test_learning_beats_the_mean_rate_on_new_trials():
    source = Lorenz(num_trials=60, num_val=20, num_time_bins=20, num_neurons=20, num_heldout=4,
                    mean_count=1.0, log_rate_std=0.8)  # fmt: skip
    data = NeuralData(source)
    torch.manual_seed(0)
    model = SequentialVAE(
        data.spec, factor_dim=4, generator_dim=24, initial_condition_dim=8, controller_dim=16,
        controller_encoder_dim=16, encoder=partial(TrialGRU, hidden_dim=16), dropout=0.1,
    )  # fmt: skip
    model.initialize(data)
    optimizer = AdamW(model.parameters(), lr=1e-2)
    train, val = data.batch(data.trials("train")), data.batch(data.trials("val"))
    for _ in range(200):
        optimizer.zero_grad()
        (-bound(model(train), train).elbo().mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 200.0)
        optimizer.step()
    mean_rate = PoissonLogRate(data.train_mean.log()).log_prob(val.target).sum((1, 2))
    model.eval()
    with torch.no_grad():
        gain = bound(model(val, 16), val).elbo() - mean_rate
    assert gain.mean() > 4 * gain.std() / len(gain) ** 0.5
