from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from seqvae.linalg import (
    Banded,
    BlockTridiagonal,
    CyclicReduction,
    Sequential,
    congruence_recursion,
    factorize,
    inverse_root,
    linear_recursion,
)

BACKENDS = [Sequential, CyclicReduction, Banded]
DIFFERENTIABLE = [Sequential, CyclicReduction]
SHAPES = [(2, 1, 2), (1, 2, 3), (2, 3, 1), (2, 5, 2), (1, 8, 2)]


@pytest.fixture(autouse=True)
def double_precision_and_seed() -> object:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random_matrix(batch: int, time: int, dim: int) -> BlockTridiagonal:
    """P = (I - A)' Lambda (I - A), positive definite for any A."""
    gain = torch.randn(batch, time - 1, dim, dim) / dim**0.5
    half = torch.randn(batch, time, dim, dim)
    pivots = half @ half.mT + 0.5 * torch.eye(dim)
    lower = -pivots[:, 1:] @ gain
    diagonal = pivots.clone()
    diagonal[:, :-1] -= gain.mT @ lower
    return BlockTridiagonal(diagonal, lower)


def selected(dense: Tensor, matrix: BlockTridiagonal) -> BlockTridiagonal:
    """The blocks of a dense matrix where ``matrix`` has its own."""
    batch, time, dim, _ = matrix.diagonal.shape
    blocks = dense.reshape(batch, time, dim, time, dim).transpose(2, 3)
    steps = torch.arange(time)
    return BlockTridiagonal(blocks[:, steps, steps], blocks[:, steps[1:], steps[:-1]])


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3), time=st.integers(1, 9), dim=st.integers(1, 4), seed=st.integers(0, 99)
)
def test_every_answer_equals_dense_linear_algebra(backend, batch, time, dim, seed) -> None:
    torch.manual_seed(seed)
    matrix = random_matrix(batch, time, dim)
    dense = matrix.dense()
    inverse = dense.inverse()
    size = time * dim
    rhs = torch.randn(2, batch, time, dim)
    factor = factorize(matrix, backend)
    assert factor.positive_definite.all()
    assert_close(factor.logdet, dense.logdet())
    expected = torch.einsum("bij,sbj->sbi", inverse, rhs.flatten(2)).reshape(rhs.shape)
    assert_close(factor.solve(rhs), expected)
    assert_close(factor.solve(rhs[0]), expected[0])
    product = torch.einsum("bij,sbj->sbi", dense, rhs.flatten(2)).reshape(rhs.shape)
    assert_close(matrix.matvec(rhs), product)
    blocks = factor.selected_inverse()
    assert_close(blocks.diagonal, selected(inverse, matrix).diagonal)
    assert_close(blocks.lower, selected(inverse, matrix).lower)
    # draws of unit noise are the columns of L^-T, and L^-T L^-1 = P^-1
    noise = torch.eye(size).reshape(size, 1, time, dim).expand(-1, batch, -1, -1)
    root = factor.draw(noise).flatten(2)
    assert_close(torch.einsum("kbi,kbj->bij", root, root), inverse)
    conditionals = factor.conditionals()
    unit = torch.eye(size) - BlockTridiagonal(
        torch.zeros_like(matrix.diagonal), conditionals.gain
    ).dense().tril(-1)
    pivots = BlockTridiagonal(conditionals.precision, torch.zeros_like(matrix.lower)).dense()
    assert_close(unit.mT @ pivots @ unit, dense)
    assert_close(conditionals.log_det.sum(1), factor.logdet)
    assert_close(conditionals.root.mT @ conditionals.root, conditionals.precision.inverse())
    assert_close(conditionals.quadratic_terms(rhs).sum(-1), (rhs * product).sum((-2, -1)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_agree_on_long_chains(backend) -> None:
    matrix, rhs = random_matrix(2, 1001, 3), torch.randn(2, 1001, 3)
    factor, reference = factorize(matrix, backend), factorize(matrix, Sequential)
    assert_close(factor.solve(rhs), reference.solve(rhs), 1e-8)  # the chain is ill-conditioned
    assert_close(factor.logdet, reference.logdet)
    assert_close(factor.selected_inverse().diagonal, reference.selected_inverse().diagonal)
    assert_close(factor.selected_inverse().lower, reference.selected_inverse().lower)


@pytest.mark.parametrize("backend", BACKENDS)
def test_single_precision_is_kept_and_good(backend) -> None:
    matrix, rhs = random_matrix(3, 50, 3).plus_diagonal(torch.eye(3)), torch.randn(3, 50, 3)
    expected = factorize(matrix, backend)
    factor = factorize(BlockTridiagonal(matrix.diagonal.float(), matrix.lower.float()), backend)
    pairs = [
        (factor.logdet, expected.logdet),
        (factor.solve(rhs.float()), expected.solve(rhs)),
        (factor.draw(rhs.float()), expected.draw(rhs)),
        (factor.selected_inverse().diagonal, expected.selected_inverse().diagonal),
    ]
    for actual, truth in pairs:
        assert actual.dtype == torch.float32
        assert (actual - truth).norm() < 3e-6 * truth.norm()


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_matrix_serves_many_chains(backend) -> None:
    matrix, rhs = random_matrix(1, 6, 2), torch.randn(3, 4, 6, 2)
    repeated = BlockTridiagonal(
        matrix.diagonal.expand(4, -1, -1, -1), matrix.lower.expand(4, -1, -1, -1)
    )
    one, many = factorize(matrix, backend), factorize(repeated, backend)
    assert_close(one.solve(rhs), many.solve(rhs))
    assert_close(one.draw(rhs), many.draw(rhs))
    assert_close(matrix.matvec(rhs), repeated.matvec(rhs))


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_coupling_serves_many_trials(backend) -> None:
    shared = random_matrix(1, 6, 2).plus_diagonal(torch.eye(2) * torch.rand(3, 6, 1, 1))
    assert shared.lower.shape[0] == 1
    own = BlockTridiagonal(shared.diagonal, shared.lower.expand(3, -1, -1, -1))
    rhs = torch.randn(3, 6, 2)
    one, many = factorize(shared, backend), factorize(own, backend)
    assert_close(one.solve(rhs), many.solve(rhs))
    assert_close(one.selected_inverse().dense(), many.selected_inverse().dense())
    assert_close(shared.matvec(rhs), own.matvec(rhs))


@pytest.mark.parametrize("backend", DIFFERENTIABLE)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_equal_finite_differences(backend, shape) -> None:
    batch, time, dim = shape
    matrix = random_matrix(batch, time, dim)
    rhs = torch.randn(2, batch, time, dim)

    def answers(diagonal: Tensor, lower: Tensor, rhs: Tensor) -> tuple[Tensor, ...]:
        symmetric = 0.5 * (diagonal + diagonal.mT)
        factor = factorize(BlockTridiagonal(symmetric, lower), backend)
        inverse, chain = factor.selected_inverse(), factor.conditionals()
        moments = (factor.logdet, factor.solve(rhs), factor.draw(rhs), inverse.diagonal)
        return (*moments, inverse.lower, chain.quadratic_terms(rhs), chain.log_det)

    variables = (matrix.diagonal, matrix.lower, rhs)
    assert gradcheck(answers, tuple(v.clone().requires_grad_() for v in variables))


@pytest.mark.parametrize("backend", DIFFERENTIABLE)
def test_second_derivatives_equal_finite_differences(backend) -> None:
    matrix, rhs = random_matrix(1, 3, 2), torch.randn(1, 3, 2)

    def answer(diagonal: Tensor, lower: Tensor) -> Tensor:
        factor = factorize(BlockTridiagonal(0.5 * (diagonal + diagonal.mT), lower), backend)
        path = factor.solve(rhs) + factor.draw(rhs)
        return factor.logdet.sum() + path.square().sum() + factor.selected_inverse().lower.sum()

    variables = (matrix.diagonal, matrix.lower)
    assert gradgradcheck(answer, tuple(v.clone().requires_grad_() for v in variables))


@pytest.mark.parametrize("backend", DIFFERENTIABLE)
def test_gradient_of_log_determinant_is_the_selected_inverse(backend) -> None:
    matrix = random_matrix(3, 7, 2)
    # one coupling for all trials: its gradient is the sum of theirs
    diagonal = (matrix.diagonal + 20 * torch.eye(2)).requires_grad_()
    lower = matrix.lower[:1].clone().requires_grad_()
    factor = factorize(BlockTridiagonal(diagonal, lower), backend)
    factor.logdet.sum().backward()
    inverse = factor.selected_inverse()
    assert_close(diagonal.grad, inverse.diagonal.detach())
    # P_{t+1,t} stands twice in P
    assert_close(lower.grad, 2 * inverse.lower.detach().sum(0, keepdim=True))


def test_lapack_passes_gradients_to_right_hand_sides() -> None:
    matrix, rhs = random_matrix(2, 9, 2), torch.randn(2, 9, 2, requires_grad=True)
    factor = factorize(matrix)
    assert isinstance(factor, Banded)
    weight = torch.randn(2, 9, 2)
    (gradient,) = torch.autograd.grad((factor.solve(rhs) * weight).sum(), rhs)
    assert_close(gradient, factor.solve(weight))
    assert_close(factor.draw(rhs).detach(), factor.draw(rhs.detach()))
    assert gradcheck(factor.draw, (rhs,))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("garbage", [1e6, float("nan")])
def test_padding_changes_nothing(backend, garbage) -> None:
    matrix, rhs = random_matrix(3, 8, 2), torch.randn(3, 8, 2)
    lengths = torch.tensor([8, 5, 1])
    mask = torch.arange(8) < lengths[:, None]
    diagonal, lower = matrix.diagonal.clone(), matrix.lower.clone()
    diagonal[~mask] = garbage
    lower[~(mask[:, 1:])] = garbage
    differentiable = backend is not Banded
    diagonal.requires_grad_(differentiable)
    lower.requires_grad_(differentiable)
    factor = factorize(BlockTridiagonal(diagonal, lower).masked(mask), backend)
    mean, draw = factor.solve(rhs), factor.draw(rhs)
    inverse = factor.selected_inverse()
    for i, length in enumerate(lengths.tolist()):
        alone = BlockTridiagonal(
            matrix.diagonal[i : i + 1, :length], matrix.lower[i : i + 1, : length - 1]
        )
        shorter = factorize(alone, backend)
        assert_close(factor.logdet[i], shorter.logdet[0], 1e-12)
        assert_close(mean[i, :length], shorter.solve(rhs[i : i + 1, :length])[0], 1e-12)
        found = inverse.diagonal[i, :length], inverse.lower[i, : length - 1]
        expected = shorter.selected_inverse()
        assert_close(found[0], expected.diagonal[0], 1e-12)
        assert_close(found[1], expected.lower[0], 1e-12)
    if differentiable:
        (mean.sum() + draw.sum() + factor.logdet.sum() + inverse.diagonal.sum()).backward()
        assert diagonal.grad.isfinite().all()
        assert (diagonal.grad[~mask] == 0).all()
        assert (lower.grad[~mask[:, 1:]] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("time", [1, 2, 9, 12])
@pytest.mark.parametrize("bad", [-50.0, float("nan")])
def test_a_matrix_that_is_not_positive_definite_is_told_and_spoils_no_other(
    backend, time, bad
) -> None:
    matrix, rhs = random_matrix(4, time, 2), torch.randn(4, time, 2)
    good = torch.tensor([True, False, True, True])
    spoilt = matrix.diagonal.clone()
    spoilt[1, time // 2, 0, 0] = bad
    factor = factorize(BlockTridiagonal(spoilt, matrix.lower), backend)
    reference = factorize(matrix, backend)
    assert factor.positive_definite.tolist() == good.tolist()
    assert factor.logdet[1].isnan()
    answers = (factor.solve(rhs), reference.solve(rhs)), (factor.draw(rhs), reference.draw(rhs))
    for found, expected in answers:
        assert_close(found[good], expected[good])
        assert found[1].isnan().any()
    inverse = factor.selected_inverse().diagonal
    assert_close(inverse[good], reference.selected_inverse().diagonal[good])
    assert inverse[1].isnan().any()
    spoilt[1, 0, 0, 0] = float("inf")
    factor = factorize(BlockTridiagonal(spoilt, matrix.lower), backend)
    assert factor.positive_definite.tolist() == good.tolist()


def test_default_backend_follows_the_gradient_and_the_shape() -> None:
    many, few = random_matrix(30, 10, 2), random_matrix(2, 10, 2)
    assert isinstance(factorize(many), Banded)
    assert isinstance(factorize(few), Banded)
    assert isinstance(factorize(random_matrix(30, 3, 2)), Sequential)
    for matrix in (many, few):
        matrix.diagonal.requires_grad_()
        assert isinstance(factorize(matrix), Sequential)
        with torch.no_grad():
            assert isinstance(factorize(matrix), Banded)


@pytest.mark.parametrize("reverse", [False, True])
def test_recursions_equal_their_definition(reverse) -> None:
    gains, terms = torch.randn(4, 2, 3, 3), torch.randn(5, 2, 3, 1)
    half = torch.randn(5, 2, 3, 3)
    squares = half @ half.mT
    vectors, blocks = terms.clone(), squares.clone()
    for t in reversed(range(4)) if reverse else range(1, 5):
        gain, other = (gains[t].mT, t + 1) if reverse else (gains[t - 1], t - 1)
        vectors[t] += gain @ vectors[other]
        blocks[t] += gain @ blocks[other] @ gain.mT
    assert_close(linear_recursion(gains, terms, reverse=reverse), vectors)
    assert_close(congruence_recursion(gains, squares, reverse=reverse), blocks)


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_of_recursions_equal_finite_differences(reverse) -> None:
    gains = torch.randn(3, 2, 2, 2, requires_grad=True)
    terms = torch.randn(4, 2, 2, 2, requires_grad=True)

    def both(gains: Tensor, terms: Tensor) -> tuple[Tensor, Tensor]:
        symmetric = terms + terms.mT
        return (
            linear_recursion(gains, terms, reverse=reverse),
            congruence_recursion(gains, symmetric, reverse=reverse),
        )

    assert gradcheck(both, (gains, terms))
    assert gradgradcheck(both, (gains, terms))


def test_recursions_leave_their_arguments_alone() -> None:
    for batch in (1, 2):
        gains, terms = torch.randn(3, batch, 2, 2), torch.randn(4, batch, 2, 2)
        before = terms.clone()
        linear_recursion(gains, terms)
        congruence_recursion(gains, terms)
        assert torch.equal(terms, before)
        matrix = random_matrix(batch, 4, 2)
        before = matrix.diagonal.clone()
        for backend in BACKENDS:
            factorize(matrix, backend).selected_inverse()
        assert torch.equal(matrix.diagonal, before)


def test_inverse_root_whitens_and_has_its_gradient() -> None:
    half = torch.randn(3, 4, 4)
    blocks = (half @ half.mT + torch.eye(4)).requires_grad_()
    root = inverse_root(blocks)
    assert_close(root @ blocks @ root.mT, torch.eye(4).expand(3, 4, 4))
    assert torch.equal(root, root.tril())
    assert gradcheck(lambda b: inverse_root(0.5 * (b + b.mT)), (blocks,))
    assert inverse_root(-torch.eye(2)).isnan().any()
