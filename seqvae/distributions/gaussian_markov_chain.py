"""Gaussian paths whose precision is block-tridiagonal."""

from __future__ import annotations

import math
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.nn import functional
from torch.types import _size

from seqvae.compute import noise
from seqvae.linalg import (
    BlockTridiagonal,
    Conditionals,
    Factor,
    factorize,
    inverse_root,
    inverse_triangular,
    linear_recursion,
)


class GaussianMarkovChain(Distribution):
    """Paths z ~ N(mean, P^-1) with a block-tridiagonal precision P: z_t depends on z_{t-1} only.

        p(z_t | z_{t-1}) = N(mean_t + A_t (z_{t-1} - mean_{t-1}), Lambda_t^-1).

    The prior of a linear dynamical system is one (``from_dynamics``), and so is its posterior
    under any likelihood that is Gaussian, or made Gaussian, in each bin: it adds to the diagonal
    blocks of P. Batch shape (batch,), event shape (time, latent). One factorisation of P, made
    when it is first needed, serves draws, densities and moments, and all of them are
    differentiable in mean and precision [Paninski et al. 2010, J. Comput. Neurosci. 29:107].

    Steps past the length of a trial are no part of its path: whatever is given there changes
    nothing; mean, covariance and draws are 0 there.

    Args:
        mean: mean of each step.
        precision: P; a batch of one serves all trials.
        lengths: steps of each trial; None: all steps.
        validate_args: as in ``torch.distributions``; without it a trial whose P is not positive
            definite answers NaN, with it ``ValueError`` names it when P is factorised.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "loc": constraints.independent(constraints.real, 2)
    }
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self,
        mean: Float[Tensor, "batch time latent"],
        precision: BlockTridiagonal,
        *,
        lengths: Int[Tensor, " batch"] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        num_steps = mean.shape[1]
        self.mask: Bool[Tensor, "#batch time"] = torch.ones(
            1, num_steps, dtype=torch.bool, device=mean.device
        )
        if lengths is not None:
            self.mask = _within(lengths, num_steps)
            mean = torch.where(self.mask[..., None], mean, 0.0)
            precision = precision.masked(self.mask)
        self.loc = mean
        self.precision = precision
        super().__init__(mean.shape[:1], mean.shape[1:], validate_args=validate_args)

    @classmethod
    def from_dynamics(
        cls,
        dynamics: Float[Tensor, "*#links latent latent"],
        noise_covariance: Float[Tensor, "*#links latent latent"],
        *,
        initial_mean: Float[Tensor, "*#trials latent"],
        initial_covariance: Float[Tensor, "*#trials latent latent"],
        num_steps: int,
        offset: Float[Tensor, "*#links latent"] | None = None,
        lengths: Int[Tensor, " batch"] | None = None,
        validate_args: bool | None = None,
    ) -> GaussianMarkovChain:
        """Return the chain of a linear dynamical system.

            z_1 ~ N(m, V),    z_t = A_t z_{t-1} + b_t + w_t,    w_t ~ N(0, Q_t).

        A, Q and b have leading shape () or (time - 1,) or (batch, time - 1), the first entry of
        time being that of step 2; m and V () or (batch,). Sizes of 1 are repeated.

        Args:
            dynamics: A.
            noise_covariance: Q.
            initial_mean: m.
            initial_covariance: V.
            num_steps: time bins.
            offset: b, such as the effect of external inputs; None: 0.
            lengths: steps of each trial; None: all steps.
            validate_args: as in the constructor.
        """
        size = initial_mean.shape[-1]
        if offset is None:
            offset = initial_mean.new_zeros(size)
        shared, links = torch.broadcast_shapes(
            dynamics.shape[:-2],
            noise_covariance.shape[:-2],
            (*initial_covariance.shape[:-2], 1),
            (1, num_steps - 1),
        )
        batch, _ = torch.broadcast_shapes(
            (shared, links),
            offset.shape[:-1],
            (*initial_mean.shape[:-1], 1),
            (1, 1) if lengths is None else (len(lengths), 1),
        )

        initial_root, root = inverse_root(initial_covariance), inverse_root(noise_covariance)
        first = (initial_root.mT @ initial_root).expand(shared, size, size)
        half = root @ dynamics
        noise_precision = (root.mT @ root).expand(shared, links, size, size)
        of_next = (half.mT @ half).expand(shared, links, size, size)
        lower = -(root.mT @ half).expand(shared, links, size, size)
        terms = torch.cat(
            [initial_mean.expand(batch, size)[:, None], offset.expand(batch, links, size)], dim=1
        )
        if lengths is not None:
            mask = _within(lengths, num_steps)
            terms = torch.where(mask[..., None], terms, 0.0)
            of_next = torch.where(mask[:, 1:, None, None], of_next, 0.0)
            noise_precision, lower = noise_precision.expand_as(of_next), lower.expand_as(of_next)
            first = first.expand(batch, size, size)
        diagonal = torch.cat([first[:, None], noise_precision], dim=1)
        diagonal = diagonal + functional.pad(of_next, (0, 0, 0, 0, 0, 1))
        gains = dynamics.expand(batch, links, size, size).transpose(0, 1)
        mean = linear_recursion(gains, terms.transpose(0, 1)[..., None])[..., 0].transpose(0, 1)
        chain = cls(
            mean, BlockTridiagonal(diagonal, lower), lengths=lengths, validate_args=validate_args
        )
        if lengths is None:  # what elimination would find, without its rounding
            precision = torch.cat([first[:, None], noise_precision], dim=1)
            of_first = inverse_triangular(initial_root).mT.expand(shared, size, size)
            of_later = inverse_triangular(root).mT.expand(shared, links, size, size)
            gain = dynamics.expand(shared, links, size, size)
            chain.conditionals = Conditionals(
                gain, precision, torch.cat([of_first[:, None], of_later], dim=1)
            )
        return chain

    @classmethod
    def from_information(
        cls,
        information: Float[Tensor, "batch time latent"],
        precision: BlockTridiagonal,
        *,
        lengths: Int[Tensor, " batch"] | None = None,
        validate_args: bool | None = None,
    ) -> GaussianMarkovChain:
        """Return the chain of density proportional to exp(h' z - z' P z / 2): mean P^-1 h.

        Args:
            information: h.
            precision: P.
            lengths: steps of each trial; None: all steps.
            validate_args: as in the constructor.
        """
        chain = cls(information, precision, lengths=lengths, validate_args=validate_args)
        mean = chain.factor.solve(chain.loc)
        solved = cls(mean, chain.precision, lengths=lengths, validate_args=validate_args)
        solved.factor = chain.factor
        return solved

    def with_mean(self, mean: Float[Tensor, "batch time latent"]) -> GaussianMarkovChain:
        """Return the chain N(mean, P^-1), P as it was factorised; past a trial's length it is 0."""
        mean = torch.where(self.mask[..., None], mean, 0.0)
        moved = GaussianMarkovChain(mean, self.precision, validate_args=self._validate_args)
        moved.mask, moved.factor = self.mask, self.factor
        return moved

    # a cache must not forget gradients because it was first asked for without them
    @cached_property
    @torch.enable_grad()
    def factor(self) -> Factor:
        """The precision, factorised."""
        factor = factorize(self.precision)
        if self._validate_args and not bool(factor.positive_definite.all()):
            trial = int((~factor.positive_definite).nonzero()[0])
            raise ValueError(f"the precision of trial {trial} is not positive definite")
        return factor

    @cached_property
    @torch.enable_grad()
    def conditionals(self) -> Conditionals:
        """A_t and Lambda_t of p(z_t | z_{t-1})."""
        return self.factor.conditionals()

    @cached_property
    @torch.enable_grad()
    def _moments(self) -> BlockTridiagonal:
        return self.factor.selected_inverse()

    @property
    def mean(self) -> Float[Tensor, "batch time latent"]:
        """The mean of each step."""
        return self.loc

    @property
    def covariance(self) -> Float[Tensor, "batch time latent latent"]:
        """The covariance of each step on its own."""
        masked = torch.where(self.mask[..., None, None], self._moments.diagonal, 0.0)
        return masked.expand(self._batch_shape + masked.shape[1:])

    @property
    def cross_covariance(self) -> Float[Tensor, "batch links latent latent"]:
        """Cov(z_{t+1}, z_t) of neighbouring steps."""
        lower = self._moments.lower
        return lower.expand(self._batch_shape + lower.shape[1:])

    @property
    def variance(self) -> Float[Tensor, "batch time latent"]:
        """The variance of each step and latent on its own."""
        return self.covariance.diagonal(dim1=-2, dim2=-1)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """Draw paths of shape sample_shape + (batch, time, latent), differentiable."""
        shape = self._extended_shape(Size(sample_shape))
        white = noise.normal(shape, like=self.loc, axis=len(shape) - 3)
        return self.loc + self.factor.draw(torch.where(self.mask[..., None], white, 0.0))

    def log_prob_terms(
        self, value: Float[Tensor, "*sample batch time latent"]
    ) -> Float[Tensor, "*sample batch time"]:
        """Return log p(z_t | z_{t-1}) of every step; their sum is ``log_prob``."""
        deviation = torch.where(self.mask[..., None], value - self.loc, 0.0)
        quadratic = self.conditionals.quadratic_terms(deviation)
        constant = self.loc.shape[-1] * math.log(2 * math.pi)
        terms = 0.5 * (self.conditionals.log_det - quadratic - constant)
        return torch.where(self.mask, terms, 0.0)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(path), shape sample_shape + (batch,)."""
        if self._validate_args:
            self._validate_sample(value)
        return self.log_prob_terms(value).sum(-1)

    def entropy_terms(self) -> Float[Tensor, "#batch time"]:
        """Return the entropy of every step given the one before; they add up to ``entropy``."""
        constant = self.loc.shape[-1] * (1 + math.log(2 * math.pi))
        return torch.where(self.mask, 0.5 * (constant - self.conditionals.log_det), 0.0)

    def entropy(self) -> Float[Tensor, " batch"]:
        """Return the entropy of each path in nats."""
        num_values = (self.mask.sum(1) * self.loc.shape[-1]).to(self.loc.dtype)
        entropy = 0.5 * (num_values * (1 + math.log(2 * math.pi)) - self.factor.logdet)
        return entropy.expand(self._batch_shape)


def _within(lengths: Int[Tensor, " batch"], num_steps: int) -> Bool[Tensor, "batch time"]:
    """Return which steps belong to each trial."""
    return torch.arange(num_steps, device=lengths.device) < lengths[:, None]
