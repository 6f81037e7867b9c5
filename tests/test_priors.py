from __future__ import annotations

import math

import pytest
import torch

from seqvae.errors import InputError
from seqvae.priors import AR1, IIDNormal, LearnableNormal, StandardNormal


def test_standard_normal_has_nothing_to_learn_or_to_save() -> None:
    prior = StandardNormal(3)
    assert not list(prior.parameters())
    assert not prior.state_dict()
    distribution = prior((5, 3))
    assert distribution.mean.shape == (5, 3)
    assert not distribution.mean.any()
    assert (distribution.stddev == 1).all()


def test_learnable_normal_is_the_same_at_every_bin() -> None:
    prior = LearnableNormal(2, std=0.5)
    with torch.no_grad():
        prior.mean.copy_(torch.tensor([1.0, -2.0]))
    distribution = prior((4, 2))
    assert distribution.mean.tolist() == [[1.0, -2.0]] * 4
    torch.testing.assert_close(distribution.stddev, torch.full((4, 2), 0.5))


def test_iid_normal_keeps_its_mean_at_zero() -> None:
    prior = IIDNormal(2, std=0.2)
    assert [name for name, _ in prior.named_parameters()] == ["log_std"]
    torch.testing.assert_close(prior((2,)).stddev, torch.full((2,), 0.2))


def test_ar1_time_constant_is_in_seconds_at_every_bin_width() -> None:
    prior = AR1(1, time_constant=0.25, std=0.6)
    for bin_width in (0.001, 0.02, 1.0):
        process = prior((9, 1), bin_width)
        assert process.decay.item() == pytest.approx(math.exp(-bin_width / 0.25), rel=1e-5)
        innovation = 0.6 * math.sqrt(-math.expm1(-2 * bin_width / 0.25))
        assert process.innovation_std.item() == pytest.approx(innovation, rel=1e-5)
        assert process.stationary_std.item() == pytest.approx(0.6)


def test_ar1_keeps_its_digits_for_a_slow_process_in_single_precision() -> None:
    process = AR1(1, time_constant=100.0, std=1.0)((3, 1), 0.001)
    expected = math.sqrt(-math.expm1(-2e-5))
    assert process.innovation_std.item() == pytest.approx(expected, rel=1e-5)


def test_ar1_needs_a_bin_width_and_a_time_axis() -> None:
    with pytest.raises(InputError, match="bin_width"):
        AR1(2)((5, 2))
    with pytest.raises(InputError, match="time, latent"):
        AR1(2)((2,), 0.01)


def test_scales_that_are_not_positive_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="time_constant must be positive"):
        AR1(2, time_constant=0.0)
    for prior in (AR1, IIDNormal, LearnableNormal):
        with pytest.raises(InputError, match="std must be positive and finite, got -1"):
            prior(2, std=-1.0)
    with pytest.raises(InputError, match="std"):
        IIDNormal(2, std=math.nan)


def test_ar1_learns_the_time_constant_and_std_of_its_samples() -> None:
    torch.manual_seed(0)
    truth = AR1(1, time_constant=0.2, std=0.5)((100, 1), 0.02)
    paths = truth.sample((300,))
    prior = AR1(1, time_constant=0.05, std=1.0)
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        loss = -prior((100, 1), 0.02).log_prob(paths).mean()
        loss.backward()
        optimizer.step()
    assert prior.log_time_constant.exp().item() == pytest.approx(0.2, rel=0.1)
    assert prior.log_std.exp().item() == pytest.approx(0.5, rel=0.1)
