from __future__ import annotations

import pytest
import torch

from seqvae.random_bits import LEVELS, LOWEST, random_int16


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
        ),
    ],
)
def test_draws_are_uniform_and_each_on_its_own(device):
    generator = torch.Generator(device).manual_seed(0)
    draws = random_int16(torch.empty(1021, 977, device=device), generator).flatten().cpu().long()
    assert (draws.min(), draws.max()) == (LOWEST, LOWEST + LEVELS - 1)
    for bits in (0xFF00, 0x00FF):  # the upper and the lower half of the bits
        counts = torch.unique(draws & bits, return_counts=True)[1]
        expected = len(draws) / 256
        statistic = ((counts - expected).square() / expected).sum()
        assert 160 < statistic < 380  # chi-square with 255 degrees of freedom
    for lag in (1, 2, 3, 4, 8):  # four neighbours come of one word
        pairs = torch.stack([draws[lag:], draws[:-lag]]).double()
        assert abs(pairs.corrcoef()[0, 1].item()) < 5 / len(draws) ** 0.5


def test_draws_lie_in_memory_as_what_they_are_like():
    for like in (torch.empty(5, 3, 4).permute(2, 0, 1), torch.empty(4, 3, dtype=torch.bool)):
        draws = random_int16(like)
        assert draws.dtype == torch.int16
        assert (draws.shape, draws.stride()) == (like.shape, like.stride())
    wide = random_int16(torch.empty(4, 1).expand(4, 9))
    assert len(wide.unique()) > 30  # a draw for each entry, whatever shares memory there
    assert random_int16(torch.empty(0, 3)).shape == (0, 3)
    assert random_int16(torch.empty(())).shape == ()


def test_a_generator_governs_the_draws():
    one, same, other = (
        random_int16(torch.empty(50), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
