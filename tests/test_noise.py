from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from seqvae.compute import noise
from seqvae.compute.noise import mixed

SINGLE, DOUBLE = torch.empty(0), torch.empty(0, dtype=torch.float64)
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
    ),
]
KINDS = {
    "normal": noise.normal,
    "uniform": noise.uniform,
    "int16": noise.int16,
}


def drawn(
    kind: str = "normal",
    shape: tuple[int, ...] = (4, 30, 7, 5),
    *,
    trial: torch.Tensor | None = None,
    seed: int = 0,
    axis: int = 1,
    like: torch.Tensor = DOUBLE,
    skip: int = 0,
    **options: bool,
) -> torch.Tensor:
    """The draw after ``skip`` others in a forward pass of the trials; by default of 0, 1, 2, ..."""
    trial = torch.arange(shape[axis]) if trial is None else trial
    with noise.keyed(seed), noise.of_trials(trial):
        for _ in range(skip):
            KINDS[kind](shape, like=like, axis=axis)
        return KINDS[kind](shape, like=like, axis=axis, **options)


def test_words_are_those_of_splitmix64():
    with noise.keyed(5), noise.of_trials(torch.tensor([17])):
        draws = noise.int16((1, 8), like=SINGLE, axis=0)
    golden = 0x9E3779B97F4A7C15
    key = mixed(mixed(17 * golden + mixed(5 + golden)) + mixed(1))
    expected = np.array([mixed(key + i * golden) for i in (1, 2)], dtype="<u8").view("<i2")
    assert draws.flatten().tolist() == expected.tolist()
    # the published sequence of the generator for the seed 1234567
    sequence = [mixed(1234567 + (i + 1) * golden) for i in range(3)]
    assert sequence == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("like", [SINGLE, DOUBLE])
def test_normal_numbers_are_normal(like, device):
    values = drawn(shape=(3, 500, 61, 11), like=like.to(device)).double().cpu()
    flat = values.flatten()
    assert stats.kstest(flat.numpy(), "norm").pvalue > 1e-3
    size = len(flat)
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0), (6, 15.0)):
        spread = {1: 1, 2: 2, 3: 15, 4: 96, 6: 10170}[power] ** 0.5
        assert abs(flat.pow(power).mean() - moment) < 4.5 * spread / size**0.5
    assert 4.3 < flat.abs().max() < 6.7
    tails = (flat.abs() > 3).double().mean()
    assert tails == pytest.approx(0.0026998, rel=4 / (0.0027 * size) ** 0.5)


@pytest.mark.parametrize("like", [SINGLE, DOUBLE])
def test_uniform_numbers_are_uniform(like):
    flat = drawn("uniform", (2, 300, 41, 13), like=like).flatten().double().numpy()
    assert stats.kstest(flat, "uniform").pvalue > 1e-3
    assert (flat.min(), flat.max()) == (pytest.approx(0, abs=1e-4), pytest.approx(1, abs=1e-4))
    assert flat.max() < 1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keyed", [True, False])
def test_draws_of_16_bits_are_uniform_and_each_on_its_own(keyed, device):
    like = torch.empty(0, device=device)
    torch.manual_seed(0)
    draws = (drawn if keyed else _unkeyed)("int16", (1021, 977), axis=0, like=like)
    draws = draws.flatten().cpu().long()
    assert (draws.min(), draws.max()) == (noise.LOWEST, noise.LOWEST + noise.LEVELS - 1)
    for bits in (0xFF00, 0x00FF):  # the upper and the lower half of the bits
        counts = torch.unique(draws & bits, return_counts=True)[1]
        assert stats.chisquare(counts.numpy()).pvalue > 1e-4
    for lag in (1, 2, 3, 4, 8, 977):  # four neighbours come of one word, 977 is the next trial
        assert abs(correlation(draws[lag:], draws[:-lag])) < 5 / len(draws) ** 0.5


def _unkeyed(kind, shape, *, axis, like):
    return KINDS[kind](shape, like=like, axis=axis)


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.stack([one.flatten(), other.flatten()]).double().corrcoef()[0, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_trials_samples_draws_seeds_and_steps_are_independent(kind):
    shape = (2, 200, 33, 7)
    base = drawn(kind, shape)
    others = {
        "draw": drawn(kind, shape, skip=1),
        "seed": drawn(kind, shape, seed=1),
        "negated seed": drawn(kind, shape, seed=-1),
        "distant seed": drawn(kind, shape, seed=1 << 32),
        "trials": drawn(kind, shape, trial=torch.arange(200) + 200),
        "distant trials": drawn(kind, shape, trial=torch.arange(200) + (1 << 32)),
        "neighbouring trial": base.roll(1, dims=1),
        "distant trial": base.roll(64, dims=1),
        "sample": base.flip(0),
        "time": base.roll(1, dims=2),
        "entry": base.roll(1, dims=3),
    }
    bound = 5 / base.numel() ** 0.5
    for name, other in others.items():
        assert abs(correlation(base, other)) < bound, name
        squares = [(part.double() - part.double().mean()).square() for part in (base, other)]
        assert abs(correlation(*squares)) < bound, name


def test_each_bit_of_seed_trial_and_draw_changes_half_of_the_bits():
    def bits(**options) -> torch.Tensor:
        words = drawn("int16", (1, 400), axis=0, **options)
        return torch.from_numpy(np.unpackbits(words.numpy().view(np.uint8)))

    base = bits(trial=torch.tensor([3]))
    size = len(base)
    for bit in range(60):
        for other in (
            bits(trial=torch.tensor([3 ^ (1 << bit)])),
            bits(trial=torch.tensor([3]), seed=1 << bit),
        ):
            share = float((base != other).double().mean())
            assert abs(share - 0.5) < 4.5 * 0.5 / size**0.5
    for skip in range(1, 20):
        share = float((base != bits(trial=torch.tensor([3]), skip=skip)).double().mean())
        assert abs(share - 0.5) < 4.5 * 0.5 / size**0.5


@pytest.mark.parametrize("like", [SINGLE, DOUBLE])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_bitwise_the_same_in_every_batch(kind, like):
    whole = drawn(kind, (5, 40, 9, 7), like=like)
    for rows in ([0], [39, 3, 17], list(range(13, 40)), [7, 8], list(range(40))[::-1]):
        trial = torch.tensor(rows)
        part = drawn(kind, (5, len(rows), 9, 7), trial=trial, like=like)
        assert torch.equal(part, whole[:, rows])
        fewer = drawn(kind, (2, len(rows), 9, 7), trial=trial.int(), like=like)
        assert torch.equal(fewer, whole[:2, rows])  # the first samples, however many
    flat = drawn(kind, (40, 63), axis=0, like=like)
    assert torch.equal(flat, whole[0].flatten(1))  # without samples: the first one


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 17])
@pytest.mark.parametrize("kind", ["normal", "int16"])
def test_the_layout_in_memory_changes_no_number(kind, size):
    shape = (3, 6, 4, size)
    plain = drawn(kind, shape, like=SINGLE)
    inner = drawn(kind, shape, like=SINGLE, trials_inner=True)
    assert torch.equal(plain, inner)
    assert plain.is_contiguous()
    assert inner.permute(2, 3, 0, 1).is_contiguous()


def test_layout_without_a_key_is_the_same():
    for kind in ("normal", "int16"):
        inner = KINDS[kind]((3, 6, 4, 5), like=SINGLE, axis=1, trials_inner=True)
        assert inner.shape == (3, 6, 4, 5)
        assert inner.permute(2, 3, 0, 1).is_contiguous()


def test_single_precision_rounds_double_precision():
    torch.testing.assert_close(drawn(like=SINGLE).double(), drawn(), rtol=1e-5, atol=1e-5)
    half = drawn(like=SINGLE.bfloat16())
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, drawn(like=SINGLE).bfloat16())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_every_device_draws_the_same(kind):
    for like, tolerance in ((SINGLE, 2e-6), (DOUBLE, 1e-14)):
        here, there = (drawn(kind, like=like.to(device)) for device in ("cpu", "cuda"))
        assert there.device.type == "cuda"
        torch.testing.assert_close(there.cpu(), here, rtol=tolerance, atol=tolerance)


def test_without_a_key_torchs_generator_draws():
    like = torch.empty(3, 4, dtype=torch.float64)
    draws = {}
    for name, make in KINDS.items():
        torch.manual_seed(0)
        first = make((3, 4), like=like, axis=0)
        torch.manual_seed(0)
        with noise.keyed(1):  # which trials, nobody says
            assert torch.equal(make((3, 4), like=like, axis=0), first)
        torch.manual_seed(0)
        with noise.of_trials(torch.arange(3)):
            assert torch.equal(make((3, 4), like=like, axis=0), first)
        draws[name] = first
    torch.manual_seed(0)
    assert torch.equal(draws["normal"], torch.randn(3, 4, dtype=torch.float64))
    torch.manual_seed(0)
    assert torch.equal(draws["uniform"], torch.rand(3, 4, dtype=torch.float64))
    assert len(draws["int16"].unique()) > 6


def test_what_has_other_rows_than_the_trials_is_drawn_by_torchs_generator():
    for shape, axis in (((7, 4), 0), ((5,), 1), ((2, 3), -1), ((), 0)):
        torch.manual_seed(0)
        expected = torch.randn(shape, dtype=torch.float64)
        torch.manual_seed(0)
        with noise.keyed(1), noise.of_trials(torch.arange(5)):
            assert torch.equal(noise.normal(shape, like=DOUBLE, axis=axis), expected)


def test_keyed_draws_leave_torchs_generator_and_the_trials_alone():
    trial = torch.arange(30)
    before = torch.get_rng_state()
    drawn(trial=trial)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(trial, torch.arange(30))


def test_torchs_generator_is_seeded_for_a_while_and_then_as_before():
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    for _ in range(2):
        with noise.apart(1):
            found = torch.randn(3)
    assert torch.equal(torch.randn(3), expected)
    torch.manual_seed(1)
    assert torch.equal(torch.randn(3), found)


def test_keys_nest_and_end():
    with noise.keyed(1), noise.of_trials(torch.arange(3)):
        first = noise.normal((3, 2), like=DOUBLE, axis=0)
        with noise.keyed(2), noise.of_trials(torch.arange(3)):
            inner = noise.normal((3, 2), like=DOUBLE, axis=0)
        second = noise.normal((3, 2), like=DOUBLE, axis=0)
        with noise.keyed(None), noise.of_trials(torch.arange(3)):
            assert not noise.is_keyed()
        assert noise.is_keyed()
    assert not noise.is_keyed()
    assert torch.equal(first, drawn(shape=(3, 2), axis=0, seed=1))
    assert torch.equal(second, drawn(shape=(3, 2), axis=0, seed=1, skip=1))
    assert torch.equal(inner, drawn(shape=(3, 2), axis=0, seed=2))
    with pytest.raises(RuntimeError, match="stop"), noise.keyed(1):
        raise RuntimeError("stop")
    with noise.of_trials(torch.arange(3)):
        assert not noise.is_keyed()


def test_zero_is_a_seed_a_trial_and_a_sample_like_any_other():
    assert drawn(shape=(1, 1, 1)).abs().item() < 4
    assert drawn("int16", (1, 4), axis=0).count_nonzero() > 2


def test_empty_shapes():
    for kind in KINDS:
        assert drawn(kind, (0, 3), axis=0).shape == (0, 3)
        assert drawn(kind, (2, 3, 0)).shape == (2, 3, 0)
        assert drawn(kind, (0, 3, 2)).shape == (0, 3, 2)
        assert drawn(kind, (2, 3)).shape == (2, 3)
        assert KINDS[kind]((0, 3), like=SINGLE, axis=0).shape == (0, 3)


def test_threads_do_not_mix():
    expected = [drawn(seed=seed, trial=torch.arange(30) + seed) for seed in range(4)]
    found: list[list[torch.Tensor]] = [[] for _ in range(4)]
    barrier = threading.Barrier(4)

    def work(seed: int) -> None:
        with noise.keyed(seed), noise.of_trials(torch.arange(30) + seed):
            for _ in range(20):
                barrier.wait()
                found[seed].append(noise.normal((4, 30, 7, 5), like=DOUBLE, axis=1))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    with noise.keyed(9), noise.of_trials(torch.arange(30)):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for seed in range(4):
        assert torch.equal(found[seed][0], expected[seed])
        assert all(not torch.equal(a, b) for a, b in pairwise(found[seed]))


def test_a_new_thread_has_no_key():
    keyed = []
    with noise.keyed(0), noise.of_trials(torch.arange(3)):
        thread = threading.Thread(target=lambda: keyed.append(noise.is_keyed()))
        thread.start()
        thread.join()
    assert keyed == [False]
