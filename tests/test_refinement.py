from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from seqvae.analysis import refine
from seqvae.analysis.refinement import as_inference_sees
from seqvae.encoders import MLP, DeltaHead, FullNormalHead, LowRankNormalHead
from seqvae.errors import InputError
from seqvae.models import VAE, LinearDynamics, SequentialVAE
from seqvae.objectives import Objective, bound
from tiny import SVAE
from toy import scramble, toy_batch, toy_spec, with_target

SPEC = toy_spec(heldout=(1, 4), num_forecast_bins=2, num_inputs=1)
LENGTHS = [8, 3, 6, 8]
SMALL_VAE = partial(VAE, latent_dim=2, factor_dim=5)
MODELS = {
    "vae": SMALL_VAE,
    "full": partial(SMALL_VAE, encoder=partial(MLP, head=FullNormalHead)),
    "low-rank": partial(SMALL_VAE, encoder=partial(MLP, head=LowRankNormalHead)),
    "svae": SVAE,
    "autonomous": partial(SVAE, inferred_input_dim=0),
    "loop": partial(SVAE, recursion="loop"),
    "score": partial(SVAE, objective=Objective(gradient="score_function", num_samples=2)),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> VAE | SequentialVAE:
    torch.manual_seed(0)
    made = MODELS[request.param](SPEC).double()
    scramble(made, size=0.2)
    return made


def test_the_refined_bound_is_never_below_and_mostly_above(model):
    batch = toy_batch(SPEC, lengths=LENGTHS)
    found = refine(model, batch, num_steps=60)
    assert (found.elbo >= found.amortised_elbo).all()
    assert (found.amortisation_gap > 0).sum() >= 3
    torch.manual_seed(0)
    with torch.no_grad():
        seen = as_inference_sees(batch, SPEC)
        again = bound(model.eval().answer(found.encoding, seen, 400), seen).elbo()
        before = bound(model(seen, 400), seen).elbo()
    assert (again > before - 0.3).all()
    assert again.mean() > before.mean()


def test_the_model_stays_as_it_is(model):
    model.train()
    objective, seed = model.objective, torch.random.get_rng_state()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    refine(model, toy_batch(SPEC), num_steps=3)
    assert model.training
    assert model.objective is objective
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(seed, torch.random.get_rng_state())


def test_trials_are_refined_on_their_own_up_to_the_noise(model):
    """What is held out or in the future does not reach the refined posterior."""
    batch = toy_batch(SPEC)
    hidden = 1 - batch.target
    hidden[:, :6, list(SPEC.heldin)] = batch.target[:, :6, list(SPEC.heldin)]
    one, other = (refine(model, b, num_steps=5) for b in (batch, with_target(batch, hidden, SPEC)))
    assert torch.equal(one.elbo, other.elbo)


def test_without_steps_nothing_is_gained(model):
    found = refine(model, toy_batch(SPEC), num_steps=0)
    assert not found.amortisation_gap.any()


def test_a_model_without_an_encoder_is_refused():
    with pytest.raises(InputError, match="LinearDynamics has no encoder"):
        refine(LinearDynamics(SPEC, latent_dim=2), toy_batch(SPEC))


def test_a_point_is_refused():
    model = SMALL_VAE(SPEC, encoder=partial(MLP, head=DeltaHead)).double()
    with pytest.raises(InputError, match="latent of this VAE has a posterior of type Delta"):
        refine(model, toy_batch(SPEC))


def test_missing_entries_do_not_count():
    batch = toy_batch(SPEC, lengths=LENGTHS)
    mask = batch.observed_mask.clone()
    mask[0, 1, 2] = False
    weight = as_inference_sees(replace(batch, observed_mask=mask), SPEC).weight
    assert weight[0, 1, SPEC.heldin[2]] == 0
    assert weight.sum() == mask.sum()
