from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.optim import AdamW

from seqvae.data import CoordinatedDropout, NeuralData
from seqvae.data.sources import Lorenz
from seqvae.distributions import Delta, PoissonLogRate, kl_terms
from seqvae.encoders import MLP, BinGRU, DeltaHead, TrialGRU
from seqvae.errors import InputError
from seqvae.models import VAE
from seqvae.objectives import bound, log_likelihood
from seqvae.observations import Bernoulli, Gaussian, NegativeBinomial
from seqvae.priors import AR1, StandardNormal
from seqvae.types import Batch, Output
from toy import scramble, toy_batch, toy_spec, valid_moments, with_garbage, with_target

LENGTHS = [8, 3, 6, 8]
SPEC = toy_spec(heldout=(1, 4), num_forecast_bins=2)


def make_vae(spec=SPEC, **options) -> VAE:
    torch.manual_seed(0)
    sizes = {"latent_dim": 3, "factor_dim": 5, "dropout": 0.0}
    model = VAE(spec, **{**sizes, **options}).double()
    scramble(model)
    return model


def answer(model: VAE, batch: Batch, num_samples: int = 2, seed: int = 1) -> Output:
    torch.manual_seed(seed)
    return model(batch, num_samples)


KINDS = pytest.mark.parametrize(
    "options",
    [
        {},
        {"prior": AR1},
        {"encoder": BinGRU, "prior": AR1},
        {"encoder": partial(BinGRU, causal=True), "decoder_dims": (4,)},
    ],
    ids=["mlp", "mlp-ar1", "gru-ar1", "causal"],
)


@KINDS
def test_output_has_the_axes_of_the_vocabulary(options):
    output = answer(make_vae(**options), toy_batch(SPEC))
    latent = output.latents["latent"]
    assert latent.sample.shape == (2, 4, 6, 3)
    assert latent.posterior.mean.shape == (4, 6, 3)
    assert output.factors.shape == (2, 4, 8, 5)
    assert output.emission.batch_shape == (2, 4, 8, 6)


@KINDS
def test_garbage_in_the_padding_changes_nothing(options):
    model, batch = make_vae(**options), toy_batch(SPEC, lengths=LENGTHS)
    clean, dirty = answer(model, batch), answer(model, with_garbage(batch))
    close = partial(torch.testing.assert_close, rtol=0, atol=1e-6)
    close(*(valid_moments(output.latents["latent"]) for output in (clean, dirty)))
    close(log_likelihood(dirty, with_garbage(batch)), log_likelihood(clean, batch))
    close(kl_terms(dirty.latents["latent"]), kl_terms(clean.latents["latent"]))
    assert log_likelihood(clean, batch).isfinite().all()


@KINDS
def test_padding_and_forecast_have_no_kl(options):
    batch = toy_batch(SPEC, lengths=LENGTHS)
    terms = kl_terms(answer(make_vae(**options), batch).latents["latent"])
    assert terms.shape[2] == SPEC.num_encoded_bins
    counted = (terms != 0).all(-1)
    assert torch.equal(counted, batch.time_mask[:, :6].expand(2, -1, -1))


@KINDS
def test_heldout_counts_and_forecast_bins_do_not_reach_the_posterior(options):
    model, batch = make_vae(**options), toy_batch(SPEC)
    before = answer(model, batch)
    hidden = batch.target.clone()
    hidden[:, :, [1, 4]] += 3
    hidden[:, 6:] += 5
    after = answer(model, with_target(batch, hidden, SPEC))
    for one, other in zip(
        valid_moments(before.latents["latent"]), valid_moments(after.latents["latent"]), strict=True
    ):
        assert torch.equal(one, other)
    assert torch.equal(before.emission.mean, after.emission.mean)
    hidden[:, 2, 0] += 1
    seen = answer(model, with_target(batch, hidden, SPEC))
    assert not torch.equal(before.emission.mean, seen.emission.mean)


def test_with_mlp_and_normal_prior_each_bin_stands_on_its_own():
    model, batch = make_vae(), toy_batch(SPEC)
    target = batch.target.clone()
    target[:, 3, 0] += 1
    change = answer(model, batch).factors - answer(model, with_target(batch, target, SPEC)).factors
    assert change.abs().amax((0, 1, 3)).nonzero().flatten().tolist() == [3]


def test_forecast_goes_on_from_the_last_bin_where_the_prior_remembers():
    target = toy_batch(SPEC).target.clone()
    target[:, 5, 0] += 2
    for prior, remembers in ((AR1, True), (StandardNormal, False)):
        model, batch = make_vae(prior=prior), toy_batch(SPEC)
        after = answer(model, with_target(batch, target, SPEC))
        change = (answer(model, batch).factors - after.factors).abs()
        assert bool(change[:, :, 6:].any()) == remembers


def test_forecast_of_an_ar1_prior_fades_to_its_stationary_moments():
    spec = toy_spec(num_time_bins=300, num_forecast_bins=298)
    model = make_vae(spec, prior=partial(AR1, time_constant=0.1, std=0.7))
    torch.nn.init.eye_(model.decoder[0].weight)
    torch.nn.init.constant_(model.decoder[0].bias, 20.0)
    path = answer(model, toy_batch(spec), 50).factors[..., :3].detach() - 20
    prior = model.prior((300, 3), spec.bin_width)
    late = path[:, :, 100:]
    torch.testing.assert_close(late.std((0, 1, 2)), prior.stationary_std, rtol=0.05, atol=0)
    decay = (late[:, :, 1:] * late[:, :, :-1]).mean((0, 1, 2)) / late.square().mean((0, 1, 2))
    torch.testing.assert_close(decay, prior.decay, rtol=0.05, atol=0)


def test_decode_is_the_way_from_latents_to_data():
    spec = toy_spec()
    model, batch = make_vae(spec), toy_batch(spec)
    output = answer(model, batch)
    sample = output.latents["latent"].sample
    torch.testing.assert_close(model.decode(sample).mean, output.emission.mean)


def test_an_encoder_of_trials_is_refused():
    with pytest.raises(InputError, match="TrialGRU answers with one latent a trial"):
        make_vae(encoder=TrialGRU)(toy_batch(SPEC))


def test_a_latent_of_no_size_is_refused():
    with pytest.raises(InputError, match="latent_dim must be at least 1, got 0"):
        VAE(SPEC, latent_dim=0)


@pytest.mark.parametrize("observation", [Bernoulli, Gaussian, NegativeBinomial])
def test_any_observation_model_is_learned_by_the_same_bound(observation):
    model = make_vae(observation=observation)
    batch = toy_batch(SPEC, data_kind=observation.kind.name)
    terms = bound(answer(model, batch), batch)
    assert terms.elbo().shape == (4,)
    assert terms.elbo().isfinite().all()


def test_delta_head_makes_an_autoencoder():
    model, batch = make_vae(encoder=partial(MLP, head=DeltaHead)), toy_batch(SPEC)
    output = answer(model, batch, 3)
    assert isinstance(output.latents["latent"].posterior, Delta)
    terms = bound(output, batch)
    assert not terms.kl["latent"].any()
    encoded = output.factors[:, :, :6]
    torch.testing.assert_close(encoded[0], encoded[1])


@KINDS
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_gradient_reaches_every_parameter(options, dropout):
    model, batch = make_vae(dropout=dropout, **options), toy_batch(SPEC, lengths=LENGTHS)
    assert model.training
    (-bound(answer(model, batch), batch).elbo().mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_dropout_acts_in_training_only():
    model, batch = make_vae(dropout=0.5), toy_batch(SPEC)

    def means() -> torch.Tensor:
        return model(batch).latents["latent"].posterior.mean

    assert not torch.equal(means(), means())
    model.eval()
    assert torch.equal(means(), means())


def test_new_trials_have_all_bins_and_change_with_the_seed():
    model = make_vae(prior=AR1)

    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return model.sample(5).factors

    assert draw(0).shape == (1, 5, 8, 5)
    assert model.sample(5).emission.sample().shape == (1, 5, 8, 6)
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_scale_of_the_observed_counts_is_taken_out():
    model, batch = make_vae(), toy_batch(SPEC)
    before = answer(model, batch)
    model.observed_scale.fill_(4.0)
    after = answer(model, replace(batch, observed=4 * batch.observed))
    torch.testing.assert_close(after.factors, before.factors)


def test_mean_input_over_dropout_masks_is_the_undropped_input():
    model, batch = make_vae(), toy_batch(SPEC)
    model.observed_mean.copy_(torch.linspace(0.1, 1.0, SPEC.num_heldin))
    undropped = model.standardized(batch)
    torch.manual_seed(0)
    dropout = CoordinatedDropout(0.3)
    inputs = torch.stack(
        [
            model.standardized(dropout(batch, SPEC.heldin, center=model.observed_mean))
            for _ in range(4000)
        ]
    )
    error = inputs.std(dim=0) / len(inputs) ** 0.5
    assert ((inputs.mean(dim=0) - undropped).abs() <= 5 * error + 1e-6).all()


def test_missing_entries_are_seen_as_the_mean():
    model, batch = make_vae(), toy_batch(SPEC)
    model.observed_mean.fill_(0.7)
    mask, weight, observed = (
        part.clone() for part in (batch.observed_mask, batch.weight, batch.observed)
    )
    mask[0, 1, 2], weight[0, 1, SPEC.heldin[2]], observed[0, 1, 2] = False, 0.0, 0.0
    seen = model.standardized(replace(batch, observed=observed, observed_mask=mask, weight=weight))
    assert seen[0, 1, 2] == 0.0


@pytest.mark.slow
def test_learning_beats_the_mean_rate_on_new_trials():
    source = Lorenz(num_trials=60, num_val=20, num_time_bins=20, num_neurons=20, num_heldout=4,
                    mean_count=1.0, log_rate_std=0.8)  # fmt: skip
    data = NeuralData(source)
    torch.manual_seed(0)
    model = VAE(data.spec, latent_dim=3, factor_dim=16)
    model.initialize(data)
    optimizer = AdamW(model.parameters(), lr=5e-3)
    train, val = data.batch(data.trials("train")), data.batch(data.trials("val"))
    for _ in range(100):
        optimizer.zero_grad()
        (-bound(model(train), train).elbo().mean()).backward()
        optimizer.step()
    mean_rate = PoissonLogRate(data.train_mean.log()).log_prob(val.target).sum((1, 2))
    model.eval()
    with torch.no_grad():
        gain = bound(model(val, 16), val).elbo() - mean_rate
    assert gain.mean() > 4 * gain.std() / len(gain) ** 0.5
