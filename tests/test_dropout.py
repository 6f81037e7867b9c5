from __future__ import annotations

import pytest
import torch
from torch import nn

from seqvae.compute import noise
from seqvae.errors import InputError
from seqvae.nn.dropout import Dropout, dropout_mask

SINGLE, DOUBLE = torch.empty(0), torch.empty(0, dtype=torch.float64)
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
    ),
]


@pytest.fixture
def every_draw(monkeypatch):
    """Each of the 65536 draws of 16 bits comes once."""

    def random_(tensor, *_):
        tensor.view(torch.int16).copy_(torch.arange(-(2**15), 2**15, dtype=torch.int16))
        return tensor

    monkeypatch.setattr(torch.Tensor, "random_", random_)


@pytest.mark.parametrize("rate", [0.0, 1e-9, 0.1, 0.3, 1 / 3, 0.5, 0.97, 1 - 1e-9])
def test_a_mask_has_the_mean_one_and_the_rounded_rate(every_draw, rate):
    mask = dropout_mask((256, 256), rate, like=DOUBLE)
    dropped = min(round(rate * 65536), 65535)
    assert int((mask == 0).sum()) == dropped
    assert mask.mean().item() == pytest.approx(1.0, abs=1e-12)
    assert set(mask.unique().tolist()) <= {0.0, 65536 / (65536 - dropped)}


@pytest.mark.parametrize("device", DEVICES)
def test_entries_are_dropped_at_the_rate_each_on_its_own(device):
    torch.manual_seed(0)
    mask = dropout_mask((1_000_003,), 0.3, like=DOUBLE.to(device))
    rate = 19661 / 65536
    dropped = (mask == 0).double()
    error = 5 * (rate * (1 - rate) / len(mask)) ** 0.5
    assert abs(dropped.mean().item() - rate) < error
    for lag in (1, 2, 3, 4, 8):  # four masks come of one draw
        both = (dropped[lag:] * dropped[:-lag]).mean().item()
        assert abs(both - rate**2) < error


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_mask_has_the_dtype_and_device_of_what_it_is_like(dtype, device):
    like = torch.empty(2, 3, dtype=dtype, device=device)
    mask = dropout_mask((40, 7, 3), 0.5, like=like)
    assert mask.shape == (40, 7, 3)
    assert (mask.dtype, mask.device) == (like.dtype, like.device)
    assert mask.unique().tolist() == [0.0, 2.0]
    assert dropout_mask((0, 3), 0.5, like=like).shape == (0, 3)
    assert dropout_mask((), 0.0, like=like).item() == 1.0


def test_a_mask_lies_in_memory_as_what_it_is_like():
    assert dropout_mask((4, 5), 0.5, like=SINGLE).is_contiguous()
    inner = dropout_mask((6, 5, 4), 0.5, like=SINGLE, trials_inner=True)
    assert inner.permute(1, 2, 0).is_contiguous()
    inner = dropout_mask((2, 6, 5, 4), 0.5, like=SINGLE, trial_axis=1, trials_inner=True)
    assert inner.permute(2, 3, 0, 1).is_contiguous()
    for view in (torch.randn(5, 4, 6).permute(2, 0, 1), torch.randn(6, 5, 4)):
        assert Dropout(0.5)(view).stride() == view.stride()
        with noise.keyed(0), noise.of_trials(torch.arange(6)):
            assert Dropout(0.5)(view).stride() == view.stride()


def test_without_a_key_torchs_own_generator_governs_the_mask():
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(dropout_mask((99,), 0.5, like=SINGLE))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("trial_axis", [0, 1])
def test_a_keyed_mask_hangs_on_the_trial(trial_axis):
    trial = torch.tensor([4, 0, 9, 2])
    order = torch.tensor([3, 1])
    dropout = Dropout(0.4, trial_axis=trial_axis)
    inputs = torch.ones(4, 7, 5) if trial_axis == 0 else torch.ones(3, 4, 7, 5)
    with noise.keyed(1), noise.of_trials(trial):
        all_trials, again = dropout(inputs), dropout(inputs)
    with noise.keyed(1), noise.of_trials(trial[order]):
        some = dropout(inputs.index_select(trial_axis, order))
    assert torch.equal(some, all_trials.index_select(trial_axis, order))
    assert not torch.equal(again, all_trials)  # one draw after the other
    assert not torch.equal(some.select(trial_axis, 0), some.select(trial_axis, 1))


def test_dropout_keeps_the_mean_and_its_gradient_is_its_mask():
    inputs = torch.full((1000, 50), 3.0, dtype=torch.float64, requires_grad=True)
    outputs = Dropout(0.2)(inputs)
    scale = 65536 / (65536 - 13107)
    assert outputs.mean().item() == pytest.approx(3.0, abs=0.05)
    torch.testing.assert_close(outputs.unique(), torch.tensor([0.0, 3.0 * scale]).double())
    (gradient,) = torch.autograd.grad(outputs.sum(), inputs)
    torch.testing.assert_close(gradient, outputs.detach() / 3.0)


def test_dropout_does_nothing_outside_training_or_at_rate_zero():
    inputs = torch.randn(4, 3)
    assert Dropout(0.5).eval()(inputs) is inputs
    assert Dropout(0.0)(inputs) is inputs


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_rates_out_of_range_are_refused(rate):
    with pytest.raises(InputError, match=f"dropout must be from 0 to below 1, got {rate:g}"):
        Dropout(rate)
    with pytest.raises(InputError, match="dropout must be"):
        dropout_mask((2,), rate, like=SINGLE)


def test_dropout_tells_its_rate():
    assert repr(nn.Sequential(Dropout(0.25))[0]) == "Dropout(rate=0.25)"
