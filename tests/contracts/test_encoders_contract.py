"""What every encoder and head promises; members are found by walking the family's folder."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial

import pytest
import torch
from noise_rule import assert_noise_depends_on_the_trial_alone
from torch import Tensor, nn
from torch.distributions import Distribution, Normal
from walk import members

import seqvae.encoders
from seqvae.distributions import draw, kl
from seqvae.encoders import MLP, Encoder, Head, InformationEncoder
from seqvae.types import Batch, Latent
from toy import batch_around, scramble

INPUT_DIM, LATENT_DIM, NUM_BINS = 4, 3, 7
LENGTHS = torch.tensor([NUM_BINS, 2, 5])

HEADS, ENCODERS = members(seqvae.encoders, Head), members(seqvae.encoders, Encoder)
INFORMATION = members(seqvae.encoders, InformationEncoder)


def named(member: type) -> str:
    return member.__name__


def takes(member: type, argument: str) -> bool:
    return argument in inspect.signature(member).parameters


def build(member: type, **options: object) -> Encoder:
    """An encoder with room for three trials."""
    encoder = member(INPUT_DIM, LATENT_DIM, **options)
    encoder.make_room(3)
    return encoder.double()


@pytest.fixture(params=ENCODERS, ids=named)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    torch.manual_seed(0)
    encoder = build(request.param)
    scramble(encoder)
    return encoder


@pytest.fixture(params=HEADS, ids=named)
def head(request: pytest.FixtureRequest) -> Head:
    torch.manual_seed(0)
    made = request.param(INPUT_DIM, LATENT_DIM).double()
    scramble(made)
    return made


def observe(seed: int = 0, num_bins: int = NUM_BINS) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, num_bins, INPUT_DIM, generator=generator, dtype=torch.float64)


def encode(encoder: Encoder, observed: Tensor, lengths: Tensor = LENGTHS) -> Distribution:
    return encoder(observed, batch_around(observed, lengths=lengths))


def valid(encoder: Encoder, value: Tensor) -> Tensor:
    """Leave out the steps past the end of each trial."""
    if value.ndim == 2:
        return value
    return value[torch.arange(NUM_BINS) < LENGTHS[:, None]]


def test_the_walk_finds_the_members() -> None:
    assert {"MLP", "TrialGRU", "BinGRU", "FreeGaussian"} <= set(map(named, ENCODERS))
    assert {"InformationMLP"} <= set(map(named, INFORMATION))
    assert {"NormalHead", "DeltaHead"} <= {member.__name__ for member in HEADS}


@pytest.mark.parametrize("member", [*ENCODERS, *INFORMATION, *HEADS], ids=named)
def test_every_member_is_a_public_name_of_the_family(member: type) -> None:
    assert getattr(seqvae.encoders, member.__name__) is member


def test_posterior_is_one_a_trial_or_one_a_bin(encoder: Encoder) -> None:
    posterior = encode(encoder, observe())
    shape = posterior.batch_shape + posterior.event_shape
    assert shape in ((3, LATENT_DIM), (3, NUM_BINS, LATENT_DIM))
    assert posterior.mean.shape == posterior.variance.shape == shape
    assert posterior.rsample((5,)).shape == (5, *shape)
    assert posterior.mean.dtype == torch.float64


@pytest.mark.parametrize("garbage", [1e3, -50.0])
def test_garbage_in_the_padding_changes_nothing(encoder: Encoder, garbage: float) -> None:
    observed = observe()
    padding = torch.arange(NUM_BINS) >= LENGTHS[:, None]
    clean = encode(encoder, observed)
    dirty = encode(encoder, observed.masked_fill(padding[..., None], garbage))
    for name in ("mean", "variance"):
        pair = [valid(encoder, getattr(posterior, name)) for posterior in (clean, dirty)]
        torch.testing.assert_close(*pair, rtol=0, atol=1e-12)


def test_trials_are_encoded_independently(encoder: Encoder) -> None:
    observed = observe()
    full = torch.full((3,), NUM_BINS)
    before = encode(encoder, observed, full).mean
    observed[1] += 1
    after = encode(encoder, observed, full).mean
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]])
    assert (after[1] != before[1]).any() != encoder.keeps_trials


def test_gradients_are_finite_and_reach_everything(encoder: Encoder) -> None:
    observed = observe().requires_grad_()
    sample = encode(encoder, observed).rsample((4,))
    sample.square().sum().backward()
    read = () if encoder.keeps_trials else (observed,)
    for tensor in (*read, *encoder.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()


def test_far_observations_keep_the_posterior_finite(encoder: Encoder) -> None:
    posterior = encode(encoder, 1e4 * observe())
    assert posterior.mean.isfinite().all()
    assert posterior.variance.isfinite().all()


@pytest.mark.parametrize("head_type", HEADS, ids=named)
@pytest.mark.parametrize(
    "member", [member for member in ENCODERS if takes(member, "head")], ids=named
)
def test_every_head_fits_on_every_encoder(member: type, head_type: type) -> None:
    posterior = encode(member(INPUT_DIM, LATENT_DIM, head=head_type).double(), observe())
    prior = Normal(torch.zeros(posterior.mean.shape[1:]).double(), 1.0)
    divergence = kl(Latent(posterior, prior, posterior.rsample((2,))))
    assert divergence.shape == (2, 3)
    assert (divergence >= 0).all()


def test_state_dict_round_trip(encoder: Encoder) -> None:
    twin = build(type(encoder))
    twin.load_state_dict(encoder.state_dict())
    pair = [encode(each.eval(), observe()).mean for each in (encoder, twin)]
    assert torch.equal(*pair)


@pytest.mark.parametrize("leading", [(), (4,), (2, 4), (1, 0)])
def test_a_head_takes_any_leading_axes(head: Head, leading: tuple[int, ...]) -> None:
    features = torch.randn(*leading, INPUT_DIM, dtype=torch.float64)
    posterior = head(features)
    assert posterior.batch_shape + posterior.event_shape == (*leading, LATENT_DIM)
    assert posterior.rsample((2,)).shape == (2, *leading, LATENT_DIM)


def test_a_head_is_differentiable_in_everything(head: Head) -> None:
    features = torch.randn(5, INPUT_DIM, dtype=torch.float64, requires_grad=True)
    head(features).rsample((3,)).square().sum().backward()
    for tensor in (features, *head.parameters()):
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()


# noise


def noisy(member: type, **options: object) -> nn.Module:
    """An encoder in training that drops half of its units, if it can."""
    torch.manual_seed(0)
    encoder = member(
        INPUT_DIM, LATENT_DIM, **options, **({"dropout": 0.5} if takes(member, "dropout") else {})
    )
    encoder = encoder.double().train()
    if isinstance(encoder, Encoder):
        encoder.make_room(3)
    scramble(encoder)
    return encoder


def drawn(encoder: Encoder, batch: Batch, num_samples: int) -> Sequence[Tensor]:
    posterior = encoder(batch.observed, batch)
    return posterior.mean[None], posterior.variance[None], draw(posterior, num_samples)


WITH_HEADS = [
    pytest.param(partial(noisy, member, head=head), id=f"{named(member)}-{named(head)}")
    for member in ENCODERS
    for head in HEADS
    if takes(member, "head")
] + [
    pytest.param(partial(noisy, member), id=named(member))
    for member in ENCODERS
    if not takes(member, "head")
]


@pytest.mark.parametrize("make", WITH_HEADS)
def test_noise_of_an_encoder_depends_on_the_trial_alone(make: partial[Encoder]) -> None:
    batch = batch_around(observe(), lengths=LENGTHS)
    assert_noise_depends_on_the_trial_alone(partial(drawn, make()), batch)


@pytest.mark.parametrize("member", INFORMATION, ids=named)
def test_noise_of_an_information_encoder_depends_on_the_trial_alone(member: type) -> None:
    encoder = noisy(member)

    def answer(batch: Batch, num_samples: int) -> Sequence[Tensor]:
        return [part[None] for part in encoder(batch.observed, batch)]

    assert_noise_depends_on_the_trial_alone(answer, batch_around(observe(), lengths=LENGTHS))


@pytest.mark.parametrize("member", HEADS, ids=named)
@pytest.mark.parametrize("num_axes", [2, 3], ids=["per-trial", "per-bin"])
def test_noise_of_a_head_depends_on_the_trial_alone(member: type, num_axes: int) -> None:
    head = noisy(member)

    def answer(batch: Batch, num_samples: int) -> Sequence[Tensor]:
        posterior = head(batch.observed if num_axes == 3 else batch.observed[:, 0])
        return posterior.mean[None], draw(posterior, num_samples)

    assert_noise_depends_on_the_trial_alone(answer, batch_around(observe()))


@pytest.mark.parametrize("member", [*ENCODERS, *INFORMATION], ids=named)
def test_an_encoder_is_without_noise_outside_training(member: type) -> None:
    encoder, batch = noisy(member), batch_around(observe(), lengths=LENGTHS)

    def answers() -> Sequence[Tensor]:
        answer = encoder(batch.observed, batch)
        return answer if member in INFORMATION else (answer.mean, answer.variance)

    encoder.eval()
    assert all(map(torch.equal, answers(), answers()))
    encoder.train()
    assert all(map(torch.equal, answers(), answers())) != takes(member, "dropout")


class TorchDropout(MLP):
    """An encoder of a user's own that breaks the rule by torch's dropout."""

    def forward(self, observed: Tensor, batch: Batch) -> Distribution:
        return super().forward(nn.functional.dropout(observed, 0.5, self.training), batch)


class GeneratorOfItsOwn(MLP):
    """One that breaks it by noise that is the same for the first trial of every batch."""

    def forward(self, observed: Tensor, batch: Batch) -> Distribution:
        generator = torch.Generator().manual_seed(0)
        jitter = torch.randn(observed.shape, generator=generator, dtype=observed.dtype)
        return super().forward(observed + jitter, batch)


@pytest.mark.parametrize(
    ("member", "sentence"),
    [(TorchDropout, "torch's own generator"), (GeneratorOfItsOwn, "not close")],
)
def test_an_encoder_that_breaks_the_rule_of_noise_is_caught(member: type, sentence: str) -> None:
    batch = batch_around(observe())
    with pytest.raises(AssertionError, match=sentence):
        assert_noise_depends_on_the_trial_alone(partial(drawn, noisy(member)), batch)
