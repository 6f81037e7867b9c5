"""The fused recursions against the loops that define them: values and gradients, float64."""

from __future__ import annotations

import copy
import gc
import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from seqvae.encoders import TrialGRU
from seqvae.generators import GRU
from seqvae.models import SequentialVAE
from seqvae.nn import SequenceGRU, products
from seqvae.nn.decoder_path import DecoderDraws
from seqvae.nn.products import products as choose_products
from seqvae.nn.workspace import Workspace
from seqvae.objectives import bound
from seqvae.types import Batch, Output
from toy import scramble, toy_batch, toy_spec

TOLERANCE = 1e-10


def make_model(recursion: str, *, spec=None, **options) -> SequentialVAE:
    torch.manual_seed(0)
    sizes = {
        "factor_dim": 3,
        "generator_dim": 7,
        "initial_condition_dim": 4,
        "inferred_input_dim": 2,
        "controller_dim": 5,
        "controller_encoder_dim": 6,
        "dropout": 0.0,
    }
    spec = toy_spec(heldout=(1, 4)) if spec is None else spec
    model = SequentialVAE(spec, recursion=recursion, **{**sizes, **options}).double()
    scramble(model)
    return model


def learn(model: SequentialVAE, batch: Batch, num_samples: int = 1) -> tuple[Output, dict]:
    """The output and the gradient of the bound, every random draw replayed."""
    model.zero_grad()
    torch.manual_seed(5)
    output = model(batch, num_samples)
    bound(output, batch).elbo().mean().backward()
    return output, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_equal_gradients(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name in one.keys() | other.keys():
        if name not in one or name not in other:  # a prior that forecasts nothing
            assert not one.get(name, other.get(name)).any(), name
            continue
        error = (one[name] - other[name]).norm() / other[name].norm().clamp_min(1e-12)
        assert error <= TOLERANCE, f"{name}: {error:.1e}"


def assert_same_learning(fused: SequentialVAE, loop: SequentialVAE, batch: Batch, **kwargs) -> None:
    loop.load_state_dict(fused.state_dict())
    for train in (True, False):
        (one, gradient), (other, expected) = (
            learn(model.train(train), batch, **kwargs) for model in (fused, loop)
        )
        close = partial(torch.testing.assert_close, rtol=TOLERANCE, atol=TOLERANCE)
        close(one.factors, other.factors)
        for name, latent in other.latents.items():
            close(one.latents[name].sample, latent.sample)
            close(one.latents[name].posterior.mean, latent.posterior.mean)
            close(one.latents[name].posterior.stddev, latent.posterior.stddev)
        assert_equal_gradients(gradient, expected)


CONTROLLERS = {
    "controller": {},
    "no lag": {"controller_lag": 0},
    "long lag": {"controller_lag": 20},
    "causal": {"causal": True, "encoder": partial(TrialGRU, num_bins=3, hidden_dim=5)},
    "autonomous": {"inferred_input_dim": 0},
}


@pytest.mark.parametrize("controller", CONTROLLERS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_fused_equals_loop_for_every_option(controller: str, dropout: float):
    options = {**CONTROLLERS[controller], "dropout": dropout}
    for num_inputs, num_forecast_bins, lengths, num_samples in itertools.product(
        (0, 2), (0, 3), (None, [8, 3, 1, 8]), (1, 3)
    ):
        spec = toy_spec(heldout=(1, 4), num_inputs=num_inputs, num_forecast_bins=num_forecast_bins)
        fused, loop = (make_model(name, spec=spec, **options) for name in ("fused", "loop"))
        batch = toy_batch(spec, lengths=lengths)
        assert_same_learning(fused, loop, batch, num_samples=num_samples)


def test_fused_equals_loop_over_many_blocks_of_steps(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("seqvae.nn.gru_path.COLUMNS_PER_BLOCK", 12)  # 3 steps of 4 trials
    fused, loop = make_model("fused", dropout=0.2), make_model("loop", dropout=0.2)
    assert_same_learning(fused, loop, toy_batch(fused.spec, lengths=[8, 3, 1, 8]))


def test_posterior_means_without_noise_are_equal():
    decoders = [make_model(name).decoder for name in ("fused", "loop")]
    states, encoding = torch.randn(2, 3, 7).double(), torch.randn(3, 6, 12).double()
    draws = DecoderDraws(torch.zeros(6, 2, 2, 3).double())
    one, other = (decoder(states, encoding, encoding[..., :0], draws=draws) for decoder in decoders)
    torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=TOLERANCE)
    assert torch.equal(one.inferred_inputs, one.input_mean)


@pytest.mark.parametrize("num_encoded", [2, 3, 0])
def test_gradients_of_the_fused_decoder_are_those_of_its_values(num_encoded: int):
    spec = toy_spec(heldout=(1,), num_inputs=1)
    model = make_model("fused", spec=spec, factor_dim=2, generator_dim=3, controller_dim=2,
                       controller_encoder_dim=1, inferred_input_dim=1)  # fmt: skip
    decoder, names = model.decoder, [name for name, _ in model.decoder.named_parameters()]
    masks = [torch.rand(shape).double() for shape in
             ((num_encoded, 2, 2), (num_encoded, 2, 2, 2), (3, 3, 2, 2))]  # fmt: skip
    draws = DecoderDraws(torch.randn(3, 1, 2, 2).double(), *(masks if num_encoded else ()))

    def prior_step(t: int, drawn: Tensor | None) -> tuple[Tensor, Tensor]:
        mean = torch.zeros(1) if drawn is None else 0.7 * drawn
        return mean.double(), torch.full((1,), 0.4).double()

    def run(state: Tensor, encoding: Tensor, external: Tensor, *parameters: Tensor) -> tuple:
        options = {"prior_step": prior_step, "draws": draws}
        return torch.func.functional_call(
            decoder, dict(zip(names, parameters, strict=True)), (state, encoding, external), options
        )

    inputs = [torch.randn(shape).double() for shape in ((2, 2, 3), (2, num_encoded, 2), (2, 3, 1))]
    inputs += [parameter.detach() for parameter in decoder.parameters()]
    assert torch.autograd.gradcheck(run, [value.requires_grad_() for value in inputs])


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("lengths", [[7, 7, 7], [7, 1, 4]])
def test_fused_gru_is_the_gru_of_torch(bidirectional: bool, lengths: list[int]):
    grus = [SequenceGRU(3, 4, bidirectional=bidirectional).double() for _ in range(2)]
    scramble(grus[0])
    grus[1].load_state_dict(grus[0].state_dict())
    grus[1].recursion = "loop"
    results = []
    for gru in grus:
        inputs = torch.linspace(-1, 1, 63).reshape(3, 7, 3).double().requires_grad_()
        states, final = gru(inputs, torch.tensor(lengths))
        last = gru.last(inputs, torch.tensor(lengths))
        loss = (states**3).sum() + final.square().sum() + last.sum()
        results.append((states, final, *torch.autograd.grad(loss, [inputs, *gru.parameters()])))
    torch.testing.assert_close(*results, rtol=TOLERANCE, atol=TOLERANCE)


def test_a_graph_may_be_gone_through_twice_until_the_next_forward_pass():
    model = make_model("fused")
    batch = toy_batch(model.spec)
    loss = bound(model(batch), batch).elbo().mean()
    parameters = list(model.decoder.parameters())
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    again = torch.autograd.grad(loss, parameters, retain_graph=True)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    model(batch)
    with pytest.raises(RuntimeError, match="use recursion='loop'"):
        torch.autograd.grad(loss, parameters)


def test_two_forward_passes_do_not_disturb_each_other():
    model, alone = make_model("fused"), make_model("fused")
    batch, other = toy_batch(model.spec), toy_batch(model.spec, seed=1)
    expected = [learn(alone, one)[1]["decoder.controller.weight_hh"] for one in (batch, other)]
    expected = [gradient.clone() for gradient in expected]
    losses = []
    for one in (batch, other):
        torch.manual_seed(5)
        losses.append(bound(model(one), one).elbo().mean())
    weight = model.decoder.controller.weight_hh
    for loss, gradient in zip(losses, expected, strict=True):
        torch.testing.assert_close(torch.autograd.grad(loss, weight)[0], gradient)


def test_differentiating_twice_is_left_to_the_loop():
    for recursion in ("loop", "fused"):
        model = make_model(recursion)
        batch, weight = toy_batch(model.spec), model.decoder.factors.weight
        loss = bound(model(batch), batch).elbo().mean()
        if recursion == "loop":
            (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
            assert torch.autograd.grad(gradient.square().sum(), weight)[0].isfinite().all()
        else:
            with pytest.raises(RuntimeError, match="build the model with recursion='loop'"):
                torch.autograd.grad(loss, weight, create_graph=True)


class Doubled(GRU):
    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        return 0.5 * super().forward(inputs, state)


def test_a_generator_that_is_more_than_a_gru_runs_in_the_loop():
    fused, loop = (make_model(name, generator=Doubled) for name in ("fused", "loop"))
    batch = toy_batch(fused.spec)
    (one, gradient), (other, expected) = (learn(model, batch) for model in (fused, loop))
    torch.testing.assert_close(one.factors, other.factors)
    assert_equal_gradients(gradient, expected)


def test_single_precision_is_close_and_survives_autocast():
    fused, loop = make_model("fused").float(), make_model("loop").float()
    batch = toy_batch(fused.spec).to(torch.float32)
    (one, gradient), (other, expected) = (learn(model, batch) for model in (fused, loop))
    torch.testing.assert_close(one.factors, other.factors, rtol=1e-4, atol=1e-5)
    for name, value in expected.items():
        error = (gradient[name] - value).norm() / value.norm().clamp_min(1e-6)
        assert error < 1e-3, f"{name}: {error:.1e}"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, rough = learn(fused, batch)
    assert half.factors.dtype == torch.float32
    assert all(value.isfinite().all() for value in rough.values())


def test_a_copy_of_a_model_has_buffers_of_its_own():
    model = make_model("fused")
    batch = toy_batch(model.spec)
    learn(model, batch)
    twin = copy.deepcopy(model)
    assert twin.decoder._fused is not model.decoder._fused
    assert_equal_gradients(learn(twin, batch)[1], learn(model, batch)[1])


def test_workspace_lends_again_what_was_released_or_forgotten():
    workspace: Workspace[object] = Workspace()
    first = workspace.lease("shape", object)
    second = workspace.lease("shape", object)
    assert second.buffers is not first.buffers
    first.release()
    third = workspace.lease("shape", object)
    assert third.buffers is first._buffers
    with pytest.raises(RuntimeError, match="a second time"):
        _ = first.buffers
    kept = second.buffers
    del second
    gc.collect()
    assert workspace.lease("shape", object).buffers is kept


def test_workspace_keeps_the_last_shapes_only():
    workspace: Workspace[object] = Workspace(capacity=2)
    made = []
    for key in "abac":
        lease = workspace.lease(key, object)
        made.append(lease.buffers)
        lease.release()
    assert made[2] is made[0]
    assert workspace.lease("c", object).buffers is made[3]
    assert len(workspace._entries) == 2


@pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="no oneDNN")
@pytest.mark.parametrize("transposed", [True, False])
def test_onednn_multiplies_like_torch(transposed: bool):
    left, right, buffer = torch.randn(60, 33), torch.randn(33, 40), torch.randn(60, 40)
    wide = torch.randn(33, 4, 40)[:, 1]  # with gaps
    for operand in (right.t().contiguous().t() if transposed else right, wide):
        for add, expected in ((False, left @ operand), (True, buffer + left @ operand)):
            result = buffer.clone()
            (products.ONEDNN.add if add else products.ONEDNN.write)(result, left, operand)
            torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="no oneDNN")
@pytest.mark.parametrize("library", ["TORCH", "ONEDNN"])
def test_a_product_of_all_steps_is_that_of_each(library: str):
    left, rights = torch.randn(20, 7), torch.randn(5, 7, 11)
    rows = torch.randn(5, 30, 11)
    expected = rows.clone()
    expected[:, :20] = left @ rights
    getattr(products, library).write_steps(rows[:, :20], left, rights)
    torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="no oneDNN")
def test_the_recursion_is_the_same_when_every_product_is_onednns(monkeypatch: pytest.MonkeyPatch):
    spec = toy_spec(heldout=(1, 4), num_inputs=2, num_forecast_bins=2)
    fused, loop = (make_model(name, spec=spec).float() for name in ("fused", "loop"))
    batch = toy_batch(spec, lengths=[8, 3, 1, 8]).to(torch.float32)
    expected_output, expected = learn(loop, batch, 2)
    monkeypatch.setattr(products, "TORCH", products.ONEDNN)
    output, gradient = learn(fused, batch, 2)
    torch.testing.assert_close(output.factors, expected_output.factors, rtol=1e-4, atol=1e-5)
    for name, value in expected.items():
        error = (gradient[name] - value).norm() / value.norm().clamp_min(1e-6)
        assert error < 1e-3, f"{name}: {error:.1e}"


def test_onednn_is_for_large_single_precision_products_on_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(products, "onednn_from", lambda: 100.0)
    single = torch.zeros(())
    assert choose_products(1000, 100, 10, like=single) is products.ONEDNN
    assert choose_products(99, 100, 100, like=single) is products.TORCH
    assert choose_products(1000, 99, 100, like=single) is products.TORCH
    assert choose_products(1000, 100, 10, like=single.double()) is products.TORCH
    monkeypatch.setattr(products, "onednn_from", lambda: math.inf)
    assert choose_products(1000, 100, 10, like=single) is products.TORCH


@pytest.mark.parametrize(
    ("cpu", "summands"),
    [
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2", 0),
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17", products.LONG_SUM),
        ("vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143", math.inf),
        ("AMD64 Family 26 Model 68 Stepping 0, AuthenticAMD", 0),
        ("arm", math.inf),
    ],
)
def test_onednn_is_taken_by_the_family_of_the_cpu(cpu: str, summands: float):
    assert products.summands_for_onednn(cpu) == summands


def test_a_linear_readout_of_the_states_is_unaffected_by_reuse_of_buffers():
    gru = SequenceGRU(3, 4).double()
    inputs, lengths = torch.randn(2, 5, 3).double(), torch.tensor([5, 5])
    states = gru(inputs, lengths).states
    before = states.detach().clone()
    states.sum().backward()
    gru(inputs + 1, lengths).states.sum().backward()
    assert torch.equal(states, before)
    assert isinstance(gru.gru, nn.GRU)


def test_buffers_first_made_for_inference_serve_training_too():
    model = make_model("fused")
    batch = toy_batch(model.spec)
    with torch.inference_mode():
        model(batch)
    with torch.no_grad():
        expected = model(batch).factors.shape
    assert learn(model, batch)[0].factors.shape == expected
