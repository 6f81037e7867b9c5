"""Normal equations of many small least-squares problems."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seqvae.linalg import normal_equations


def problems(*leading: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    slopes = torch.randn(*leading, 3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(2, 4, 5, dtype=torch.float64, requires_grad=True)
    residual = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    return slopes, weight, residual


@pytest.mark.parametrize("leading", [(2, 4), (1, 4)], ids=["slopes of each", "slopes of all"])
def test_normal_equations_are_sums_over_neurons(leading: tuple[int, int]) -> None:
    slopes, weight, residual = problems(*leading)
    matrix, vector = normal_equations(slopes, weight, residual)
    of_each = slopes.expand(2, 4, 3, 5)
    torch.testing.assert_close(
        matrix, torch.einsum("btin,btn,btjn->btij", of_each, weight, of_each)
    )
    torch.testing.assert_close(vector, torch.einsum("btin,btn->bti", of_each, residual))


@pytest.mark.parametrize("leading", [(2, 4), (1, 4)], ids=["slopes of each", "slopes of all"])
def test_gradient_of_the_normal_equations_is_that_of_finite_differences(
    leading: tuple[int, int],
) -> None:
    assert torch.autograd.gradcheck(normal_equations, problems(*leading))
