from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from seqvae.distributions import Delta
from seqvae.encoders import MLP, BinGRU, DeltaHead, Encoder, NormalHead, TrialGRU
from toy import batch_around, scramble

LENGTHS = torch.tensor([7, 2, 5])


@pytest.fixture(autouse=True)
def double_precision_and_seed() -> object:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def posterior_mean(encoder: Encoder, observed: Tensor, lengths: Tensor | None = None) -> Tensor:
    return encoder(observed, batch_around(observed, lengths=lengths)).mean


def bins_that_change(encoder: Encoder, changed: int) -> Tensor:
    """Whether the posterior of each of 7 bins knows bin ``changed``."""
    observed = torch.randn(3, 7, 4)
    other = observed.clone()
    other[:, changed] += 1
    difference = posterior_mean(encoder, observed) - posterior_mean(encoder, other)
    return difference.abs().amax((0, 2)) > 0


def test_mlp_takes_each_bin_on_its_own():
    assert bins_that_change(MLP(4, 2), 3).tolist() == [t == 3 for t in range(7)]


def test_mlp_without_hidden_layers_is_linear():
    encoder = MLP(4, 2, hidden_dims=())
    first, second = torch.randn(2, 3, 7, 4)
    middle = posterior_mean(encoder, 0.5 * (first + second))
    ends = posterior_mean(encoder, first) + posterior_mean(encoder, second)
    torch.testing.assert_close(middle, 0.5 * ends)


def test_mlp_has_the_hidden_layers_it_was_given():
    shapes = [tuple(layer.shape) for layer in MLP(4, 2, hidden_dims=(8, 6)).layers.parameters()]
    assert shapes == [(8, 4), (8,), (6, 8), (6,)]


def test_bin_gru_reads_both_ways_and_causal_forward_only():
    assert bins_that_change(BinGRU(4, 2), 3).all()
    assert bins_that_change(BinGRU(4, 2, causal=True), 3).tolist() == [t >= 3 for t in range(7)]


@pytest.mark.parametrize("num_bins", [1, 3, 7, 20])
def test_trial_gru_reads_the_first_bins_only(num_bins: int):
    encoder = TrialGRU(4, 2, num_bins=num_bins)
    observed = torch.randn(3, 7, 4)
    before = posterior_mean(encoder, observed)
    for t in range(7):
        other = observed.clone()
        other[:, t] += 1
        assert torch.equal(posterior_mean(encoder, other), before) == (t >= num_bins)


def test_trial_gru_refuses_to_read_nothing():
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        TrialGRU(4, 2, num_bins=0)


@pytest.mark.parametrize("member", [TrialGRU, partial(TrialGRU, num_bins=4), BinGRU, MLP])
def test_trials_of_unequal_length_are_encoded_as_if_alone(member):
    encoder = member(4, 2)
    scramble(encoder)
    observed = torch.randn(3, 7, 4)
    together = posterior_mean(encoder, observed, LENGTHS)
    for i, length in enumerate(LENGTHS.tolist()):
        alone = posterior_mean(encoder, observed[i : i + 1, :length])[0]
        row = together[i] if together.ndim == 2 else together[i, :length]
        torch.testing.assert_close(row, alone)


@pytest.mark.parametrize("member", [TrialGRU, BinGRU, MLP])
def test_dropout_acts_in_training_only(member):
    encoder, observed = member(4, 2, dropout=0.5), torch.randn(3, 7, 4)
    assert not torch.equal(posterior_mean(encoder, observed), posterior_mean(encoder, observed))
    encoder.eval()
    assert torch.equal(posterior_mean(encoder, observed), posterior_mean(encoder, observed))


def test_normal_head_starts_near_its_standard_deviation_and_keeps_its_floor():
    head = NormalHead(4, 2, initial_std=0.7, min_std=0.01)
    torch.testing.assert_close(head(torch.zeros(3, 4)).stddev, torch.full((3, 2), 0.7))
    assert not head(torch.zeros(3, 4)).mean.any()
    with torch.no_grad():
        head.linear.bias.fill_(-1e4)
    assert (head(torch.zeros(3, 4)).stddev >= 0.01).all()


@pytest.mark.parametrize(("initial_std", "min_std"), [(0.1, 0.1), (0.5, 0.0), (0.5, -1.0)])
def test_normal_head_refuses_a_floor_that_is_none(initial_std: float, min_std: float):
    with pytest.raises(ValueError, match="need initial_std > min_std > 0"):
        NormalHead(4, 2, initial_std=initial_std, min_std=min_std)


@pytest.mark.parametrize("member", [MLP, TrialGRU, BinGRU])
def test_the_head_chooses_the_kind_of_posterior(member):
    encoder = member(4, 2, head=DeltaHead)
    observed = torch.randn(3, 7, 4)
    posterior = encoder(observed, batch_around(observed))
    assert isinstance(posterior, Delta)
    assert torch.equal(posterior.rsample((5,))[4], posterior.mean)
