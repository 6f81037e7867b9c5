from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.distributions import Distribution, MultivariateNormal, Normal

from seqvae import Run, evaluate, fit
from seqvae.distributions.unconstrained import gaussian_of_root, log_root
from seqvae.encoders import FreeGaussian, FullNormalHead, LowRankNormalHead
from seqvae.errors import InputError
from seqvae.models import VAE
from seqvae.objectives import bound
from tiny import SVAE, tiny_data, tiny_learner
from toy import batch_around, toy_batch, toy_spec

FREE_VAE = partial(VAE, latent_dim=2, dropout=0.0, encoder=FreeGaussian)
FREE_SVAE = partial(SVAE, dropout=0.0, encoder=FreeGaussian)


def free_learner(max_epochs: int = 2):
    return tiny_learner(max_epochs, trainer={"limit_val_batches": 0})


def ask(encoder: FreeGaussian, *trials: int) -> Distribution:
    """The posteriors of these trials of a recording, whatever their data."""
    observed = torch.zeros(len(trials), 3, 4)
    batch = replace(batch_around(observed), trial=torch.tensor(trials))
    return encoder(observed, batch)


def test_each_trial_has_numbers_of_its_own():
    encoder = FreeGaussian(4, 2, initial_std=0.5)
    encoder.make_room(6, 3)
    assert ask(encoder, 5, 0).mean.shape == (2, 3, 2)
    torch.testing.assert_close(ask(encoder, 1).stddev, torch.full((1, 3, 2), 0.5))
    ask(encoder, 4, 1).rsample().sum().backward()
    assert encoder.mean.grad.flatten(1).any(1).tolist() == [i in (1, 4) for i in range(6)]
    assert encoder.log_root.grad.flatten(1).any(1).tolist() == [i in (1, 4) for i in range(6)]


def test_full_covariance_starts_round_and_learns_every_entry():
    encoder = FreeGaussian(4, 3, covariance="full", initial_std=0.5)
    encoder.make_room(5)
    posterior = ask(encoder, *range(5))
    assert isinstance(posterior, MultivariateNormal)
    torch.testing.assert_close(posterior.covariance_matrix[0], 0.25 * torch.eye(3))
    posterior.rsample().square().sum().backward()
    assert encoder.log_root.grad[0].tril().flatten().count_nonzero() == 6


def test_a_trial_without_room_is_refused():
    with pytest.raises(InputError, match="keeps a posterior for each of 0 trials, and has none"):
        ask(FreeGaussian(4, 2), 0)


@pytest.mark.parametrize("initial_std", [0.0, -1.0])
def test_a_spread_that_is_none_is_refused(initial_std: float):
    with pytest.raises(InputError, match="initial_std must be positive"):
        FreeGaussian(4, 2, initial_std=initial_std)


def test_free_numbers_tell_any_gaussian():
    mean, scale = torch.randn(4, 3).double(), torch.rand(4, 3).double() + 0.1
    for posterior in (
        Normal(mean, scale),
        MultivariateNormal(mean, scale_tril=torch.diag_embed(scale) + torch.ones(3, 3).tril(-1)),
    ):
        again = gaussian_of_root(posterior.mean, log_root(posterior))
        assert type(again) is type(posterior)
        sample = torch.randn(4, 3).double()
        torch.testing.assert_close(again.log_prob(sample), posterior.log_prob(sample))


@pytest.mark.parametrize("model", [FREE_VAE, FREE_SVAE], ids=["vae", "svae"])
def test_weight_decay_leaves_free_posteriors_alone(model):
    data = tiny_data()
    data.setup()
    made = model(data.spec)
    made.initialize(data)
    shrunk, kept = made.parameter_groups()
    own = {id(parameter) for parameter in made.encoder.parameters()}
    assert not own & {id(parameter) for parameter in shrunk["params"]}
    assert own <= {id(parameter) for parameter in kept["params"]}
    assert sum(len(group["params"]) for group in (shrunk, kept)) == len(list(made.parameters()))


@pytest.mark.parametrize(
    ("model", "covariance"), [(FREE_VAE, "full"), (FREE_SVAE, "diagonal")], ids=["vae", "svae"]
)
def test_a_fit_is_kept_and_read_back(model, covariance: str, tmp_path):
    factory = partial(model, encoder=partial(FreeGaussian, covariance=covariance))
    data = tiny_data()
    run = fit(data, factory, free_learner(), run_dir=str(tmp_path / "run"))
    learned = run.model()
    train = data.trials("train")
    moved = learned.encoder.mean.detach().flatten(1).any(1)
    assert moved[torch.from_numpy(train)].all()
    assert not moved[torch.from_numpy(data.trials("val"))].any()
    again = Run(tmp_path / "run").model()
    assert torch.equal(again.encoder.mean, learned.encoder.mean)
    found = evaluate(Run(tmp_path / "run"), num_samples=3, refine_steps=5)
    assert found["amortisation_gap"] >= 0
    assert found["refined"]["heldin_elbo"] == pytest.approx(found["elbo_refined"], rel=0.1)


def test_trials_of_another_recording_are_not_taken_for_those_learned(tmp_path):
    run = fit(tiny_data(), FREE_VAE, free_learner(), run_dir=str(tmp_path / "run"))
    other = tiny_data(tiny_data().source.__class__(
        num_trials=30, num_val=8, num_time_bins=10, num_neurons=6, num_heldout=2, seed=5
    ))  # fmt: skip
    evaluate(run, other, split="train", num_samples=2)
    kept = run.model().encoder.mean
    assert kept.shape[0] == 24
    assert kept.any()
    found = evaluate(run, other, split="train", num_samples=2)["latents"]["latent"]
    assert found["variance_of_mean"] == [0.0, 0.0]


def test_validation_trials_cannot_select(tmp_path):
    with pytest.raises(InputError, match=r"set trainer\.limit_val_batches to 0"):
        fit(tiny_data(), FREE_VAE, tiny_learner(), run_dir=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_one_posterior_per_trial_learns_what_an_encoder_would_have_to():
    """Mean-field inference climbs the bound of the trials that it was shown."""
    spec = toy_spec(num_neurons=6, num_time_bins=4)
    batch = toy_batch(spec)
    torch.manual_seed(0)
    model = VAE(spec, latent_dim=2, factor_dim=4, dropout=0.0, encoder=FreeGaussian).double()
    model.make_room(4, 4)
    optimizer = torch.optim.Adam(model.encoder.parameters(), lr=0.05)

    def elbo(num_samples: int) -> torch.Tensor:
        return bound(model(batch, num_samples), batch).elbo().mean()

    before = elbo(500).item()
    for _ in range(150):
        optimizer.zero_grad()
        (-elbo(8)).backward()
        optimizer.step()
    assert elbo(500).item() > before + 0.02


def test_covariances_of_heads_are_what_they_are_made_of():
    features = torch.randn(7, 5)
    full, low = FullNormalHead(5, 3), LowRankNormalHead(5, 3, rank=2)
    scale = full(features).scale_tril
    torch.testing.assert_close(scale.diagonal(dim1=-2, dim2=-1), full.alone(features).stddev)
    torch.testing.assert_close(scale[:, [1, 2, 2], [0, 0, 1]], full.below(features))
    assert not scale.triu(1).any()
    found = low(features)
    directions = found.covariance_matrix - torch.diag_embed(low.alone(features).variance)
    assert (torch.linalg.matrix_rank(directions, rtol=1e-3) == 2).all()


def test_a_rank_of_none_is_refused():
    with pytest.raises(InputError, match="rank must be at least 1, got 0"):
        LowRankNormalHead(5, 3, rank=0)
