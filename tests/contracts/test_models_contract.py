"""What every model promises; members are found by walking the family's folder."""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from torch.testing import assert_close
from walk import members

import seqvae.models
from seqvae.compute import noise
from seqvae.data import CoordinatedDropout, NeuralData
from seqvae.data.sources import Arrays
from seqvae.distributions import kl, kl_terms
from seqvae.encoders import MLP, DeltaHead
from seqvae.learning.gradient import quiet
from seqvae.models import (
    VAE,
    LatentVariableModel,
    LinearDynamics,
    Mixture,
    Model,
    NonlinearDynamics,
)
from seqvae.objectives import Objective, bound, importance_weighted_bound, log_likelihood
from seqvae.types import Batch, Output
from toy import (
    scramble,
    toy_batch,
    toy_spec,
    valid_moments,
    with_garbage,
    with_target,
    wrong_slopes,
)

DIMENSION, NUM_SAMPLES = 3, 2
SPEC = toy_spec(heldout=(1, 4), num_forecast_bins=2, num_inputs=2)
MODELS = members(seqvae.models, Model)
LEARNED = [member for member in MODELS if member is not Mixture]
PARTS = {"vae": VAE, "lds": LinearDynamics}
TRAINED = members(seqvae.models, LatentVariableModel)


@pytest.fixture(params=MODELS, ids=lambda member: member.__name__)
def member(request: pytest.FixtureRequest) -> type[Model]:
    torch.manual_seed(0)
    return request.param


@pytest.fixture(params=LEARNED, ids=lambda member: member.__name__)
def learned(request: pytest.FixtureRequest) -> type[Model]:
    """A member with latents and a size of its own, which a mixture of models has not."""
    torch.manual_seed(0)
    return request.param


@pytest.fixture(params=TRAINED, ids=lambda member: member.__name__)
def trained(request: pytest.FixtureRequest) -> type[LatentVariableModel]:
    """A member that learns by gradients."""
    torch.manual_seed(0)
    return request.param


def built(member: type[Model], size: int = DIMENSION) -> Model:
    if member is Mixture:
        parts = {name: partial(part, latent_dim=size) for name, part in PARTS.items()}
        return Mixture(SPEC, members=parts, weights={"vae": 0.25, "lds": 0.75}).double()
    return member(SPEC, **{member.dimension_argument: size}).double()


def scrambled(member: type[Model]) -> Model:
    made = built(member)
    scramble(made, size=0.05)
    return made.eval()


@pytest.fixture
def model(member: type[Model]) -> Model:
    return scrambled(member)


def example(model: Model, **options) -> Batch:
    return toy_batch(SPEC, data_kind=model.observation.kind.name, **options)


def answer(model: Model, batch: Batch, seed: int = 1) -> Output:
    torch.manual_seed(seed)
    return model(batch, NUM_SAMPLES)


def test_the_walk_finds_the_members() -> None:
    assert {"VAE", "SequentialVAE"} <= {member.__name__ for member in TRAINED}
    linear = {"LinearDynamics", "SwitchingLinearDynamics"}
    assert {"VAE", "SequentialVAE"} | linear <= {member.__name__ for member in MODELS}


def test_every_member_is_a_public_name_of_the_family(member: type[Model]) -> None:
    assert getattr(seqvae.models, member.__name__) is member


def test_a_model_that_leaves_out_a_promise_cannot_be_built() -> None:
    class Unfinished(LatentVariableModel):
        dimension_argument = "latent_dim"

    with pytest.raises(TypeError, match="abstract"):
        Unfinished(SPEC)


def test_only_the_facts_of_the_data_must_be_given(learned: type[Model]) -> None:
    parameters = inspect.signature(learned).parameters
    needed = [name for name, p in parameters.items() if p.default is inspect.Parameter.empty]
    assert needed == ["spec"]
    assert learned.dimension_argument in parameters


def test_output_has_the_axes_of_the_vocabulary(model: Model) -> None:
    batch = example(model)
    output = answer(model, batch)
    assert output.emission.batch_shape == (NUM_SAMPLES, *batch.target.shape)
    assert output.emission.event_shape == ()
    assert output.factors.shape[:3] == (NUM_SAMPLES, *batch.target.shape[:2])
    assert bool(output.latents) == (not isinstance(model, Mixture))
    for latent in output.latents.values():
        assert latent.sample.shape[:2] == (NUM_SAMPLES, len(batch))
        assert kl(latent).shape == (NUM_SAMPLES, len(batch))


def test_dimension_argument_sizes_the_model(learned: type[Model]) -> None:
    for size in (1, 5):
        model = built(learned, size)
        output = answer(model, example(model))
        sizes = {output.factors.shape[-1]}
        sizes |= {latent.sample.shape[-1] for latent in output.latents.values()}
        assert size in sizes


def test_bound_is_finite_and_below_the_importance_weighted_one_on_average(
    learned: type[Model],
) -> None:
    model = scrambled(learned)
    batch = example(model, lengths=[8, 3, 6, 8])
    torch.manual_seed(0)
    with torch.no_grad():
        output = model(batch, 300)
    elbo, iwae = bound(output, batch).elbo(), importance_weighted_bound(output, batch)
    assert elbo.isfinite().all()
    assert (iwae > elbo - 0.5).all()


def test_the_seed_decides_the_noise(model: Model) -> None:
    batch = example(model)
    assert torch.equal(answer(model, batch).factors, answer(model, batch).factors)
    assert not torch.equal(answer(model, batch).factors, answer(model, batch, seed=2).factors)


def test_garbage_in_the_padding_changes_nothing(model: Model) -> None:
    batch = example(model, lengths=[8, 3, 6, 8])
    garbage = with_garbage(batch)
    clean, dirty = answer(model, batch), answer(model, garbage)
    close = partial(assert_close, rtol=0, atol=1e-6)
    for name, latent in clean.latents.items():
        close(valid_moments(dirty.latents[name]), valid_moments(latent))
        close(kl_terms(dirty.latents[name]), kl_terms(latent))
    valid = batch.time_mask
    close(dirty.factors[:, valid], clean.factors[:, valid])
    close(log_likelihood(dirty, garbage), log_likelihood(clean, batch))


def test_heldout_and_forecast_entries_do_not_reach_the_output(model: Model) -> None:
    batch = example(model)
    hidden = 1 - batch.target
    hidden[:, :6, list(SPEC.heldin)] = batch.target[:, :6, list(SPEC.heldin)]
    before, after = answer(model, batch), answer(model, with_target(batch, hidden, SPEC))
    for name, latent in before.latents.items():
        assert torch.equal(latent.posterior.mean, after.latents[name].posterior.mean)
        assert torch.equal(latent.sample, after.latents[name].sample)
    assert torch.equal(before.emission.mean, after.emission.mean)


def test_heldin_entries_reach_the_output(model: Model) -> None:
    batch = example(model)
    seen = batch.target.clone()
    seen[:, 2, 0] = 1 - seen[:, 2, 0]
    after = answer(model, with_target(batch, seen, SPEC))
    assert not torch.equal(answer(model, batch).emission.mean, after.emission.mean)


def test_trials_are_independent(model: Model) -> None:
    batch = example(model)
    observed = batch.observed.clone()
    observed[1] = 1 - observed[1]
    before, after = answer(model, batch), answer(model, replace(batch, observed=observed))
    others = [0, 2, 3]
    assert_close(after.factors[:, others], before.factors[:, others])
    assert not torch.equal(after.factors[:, 1], before.factors[:, 1])


@pytest.mark.parametrize("training", [True, False])
def test_all_noise_hangs_on_the_trial_and_none_on_its_batch(
    member: type[Model], training: bool
) -> None:
    """To the last bit; what is left is how products over other numbers of trials are rounded."""
    model = scrambled(member).train(training)
    batch = example(model, lengths=[8, 3, 6, 8])
    state = torch.get_rng_state()
    rows = torch.tensor([2, 3, 0])
    with noise.keyed(7):
        whole, again = (model(batch, NUM_SAMPLES + 1) for _ in range(2))
        part = model(batch[rows], NUM_SAMPLES)
    assert torch.equal(torch.get_rng_state(), state)  # no draw was made by another generator
    assert torch.equal(whole.factors, again.factors)
    answers = [(part.factors, whole.factors)]
    answers += [(part.latents[n].sample, whole.latents[n].sample) for n in whole.latents]
    for found, expected in answers:
        valid = batch.time_mask[rows] if found.ndim > 3 else slice(None)
        if found.ndim > 3 and found.shape[2] < valid.shape[1]:
            valid = valid[:, : found.shape[2]]
        assert_close(found[:, valid], expected[:NUM_SAMPLES, rows][:, valid], rtol=1e-6, atol=1e-6)
    with noise.keyed(8):
        assert not torch.equal(model(batch, NUM_SAMPLES + 1).factors, whole.factors)


def test_gradient_in_training_reaches_every_parameter(
    trained: type[LatentVariableModel],
) -> None:
    model = scrambled(trained)
    batch = example(model, lengths=[8, 3, 6, 8])
    model.train()
    (-bound(answer(model, batch), batch).elbo().mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_slope_of_the_bound_is_that_of_finite_differences(
    trained: type[LatentVariableModel],
) -> None:
    if trained is NonlinearDynamics:
        pytest.skip("its slopes are those at a given linearisation; see test_nonlinear_dynamics")
    model = scrambled(trained)
    batch = example(model)
    assert wrong_slopes(model, lambda: bound(answer(model, batch), batch).elbo().sum()) == {}


def test_recurrent_kernels_are_parameters_of_the_model(trained: type[LatentVariableModel]) -> None:
    model = trained(SPEC)
    own = {id(parameter) for parameter in model.parameters()}
    assert all(id(kernel) in own for kernel in model.recurrent_kernels)


def test_new_trials_are_drawn_from_the_prior(model: Model) -> None:
    inputs = torch.randn(5, SPEC.num_time_bins, SPEC.num_inputs, dtype=torch.float64)

    def draw(seed: int) -> Output:
        torch.manual_seed(seed)
        return model.sample(5, inputs)

    assert draw(0).emission.batch_shape == (1, 5, SPEC.num_time_bins, SPEC.num_neurons)
    assert draw(0).emission.sample().isfinite().all()
    assert torch.equal(draw(0).factors, draw(0).factors)
    assert not torch.equal(draw(0).factors, draw(1).factors)


def test_a_batch_of_some_neurons_is_answered_as_one_in_which_the_others_are_missing(
    model: Model,
) -> None:
    """Values and gradients; neurons in any order of rows."""
    batch, some = example(model), (0, 2, 3, 4)
    is_there = torch.isin(torch.arange(SPEC.num_neurons), torch.tensor(some))
    mask = batch.observed_mask & is_there[list(SPEC.heldin)]
    observed, weight = torch.where(mask, batch.observed, 0.0), batch.weight * is_there
    dense = replace(batch, observed=observed, observed_mask=mask, weight=weight)
    places = SPEC.heldin_among(some)
    compact = replace(
        dense,
        observed=observed[..., places],
        observed_mask=mask[..., places],
        target=batch.target[..., some],
        weight=weight[..., some],
        neurons=some,
    )
    narrow, seen = model.narrowed(model.scored(compact))
    answers = []
    for asked, given in ((model, model.scored(dense)), (narrow, seen)):
        model.zero_grad()
        with noise.keyed(3):
            output = asked(given, NUM_SAMPLES)
        likelihood = log_likelihood(output, given)
        if likelihood.requires_grad:
            likelihood.sum().backward()
        slopes = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        answers.append((output.factors, likelihood, *slopes))
    assert output.emission.mean.shape[-1] == len(some)
    assert model.narrowed(batch)[0] is model
    assert model.spec is SPEC
    for one, other in zip(*answers, strict=True):
        assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_state_dict_round_trip(model: Model) -> None:
    twin = built(type(model)).eval()
    twin.load_state_dict(model.state_dict())
    batch = example(model)
    assert torch.equal(answer(twin, batch).emission.mean, answer(model, batch).emission.mean)


def make_data(kind: str, **options) -> NeuralData:
    generator = np.random.default_rng(0)
    activity = generator.poisson(1.0, (16, 8, 6)).astype(float)
    activity = {"counts": activity, "binary": np.minimum(activity, 1)}.get(
        kind, generator.standard_normal((16, 8, 6))
    )
    activity[3, 5:] = np.nan
    activity[5, 2, 1] = np.nan
    inputs = generator.standard_normal((16, 8, 2))
    source = Arrays(activity, 0.02, inputs=inputs)
    return NeuralData(source, heldout=[1, 4], forecast_bins=2, batch_size=4, **options)


def test_learning_starts_at_the_training_mean(learned: type[Model]) -> None:
    data = make_data(learned(SPEC).observation.kind.name)
    # what begins at a fitted model leaves this for its own
    alone = {"em_iterations"} & inspect.signature(learned).parameters.keys()
    model = learned(data.spec, **{learned.dimension_argument: DIMENSION}, **dict.fromkeys(alone, 0))
    assert not model.initialized
    model.initialize(data)
    assert model.initialized
    assert_close(model.null_counts, data.train_mean)
    factors = model(data.batch(data.trials("train"))).factors
    start = model.observation(torch.zeros_like(factors)).mean
    assert_close(start.to(data.train_mean), data.train_mean.expand(start.shape))


def fit(model: LatentVariableModel, data: NeuralData) -> Trainer:
    with quiet():
        trainer = Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
        )
        trainer.fit(model, datamodule=data)
    return trainer


def test_a_lightning_trainer_learns_it(trained: type[LatentVariableModel]) -> None:
    kind = trained(SPEC).observation.kind.name
    data = make_data(kind, coordinated_dropout=CoordinatedDropout(0.3, 0.1), speckled_fraction=0.2)
    model = trained(data.spec, **{trained.dimension_argument: DIMENSION})
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer = fit(model, data)
    assert trainer.global_step == 8
    names = {"train/elbo", "train/log_likelihood", "val/elbo", "val/iwae", "val/log_likelihood"}
    assert names | {"val/speckled_log_likelihood"} <= set(trainer.callback_metrics)
    assert all(value.isfinite() for value in trainer.callback_metrics.values())
    for old, parameter in zip(before, model.parameters(), strict=True):
        assert not torch.equal(old, parameter)


def test_an_autoencoder_is_learned_without_a_bound_to_report() -> None:
    data = make_data("counts")
    model = VAE(data.spec, encoder=partial(MLP, head=DeltaHead), objective=Objective(beta_steps=0))
    found = set(fit(model, data).callback_metrics)
    assert not {"train/elbo", "val/elbo", "val/iwae"} & found
    assert {"train/log_likelihood", "val/log_likelihood"} <= found
