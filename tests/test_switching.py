from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from linear import random_model, simulate
from seqvae.distributions import DiscreteMarkovChain, SwitchingMarkovChain, kl_terms, log_ratio
from seqvae.state_space import (
    Switches,
    SwitchingPenalty,
    SwitchingStateSpace,
    begin_switching,
    canonical_switching,
    exact,
    infer_by_turns,
    infer_switching,
    laplace,
    maximize_switching,
    path_bound,
    seen_bins,
    switching_bound,
    variational,
)
from seqvae.state_space.continuation import continued_moments, continued_sample
from seqvae.state_space.dynamics import LinkMoments, PathMoments
from seqvae.state_space.e_steps import converged
from seqvae.state_space.switching_start import stacked
from seqvae.types import Batch, Latent
from switching import chain_of, exact_log_evidence, random_switching, simulate_switching

E_STEPS = {"exact": exact, "laplace": laplace, "variational": variational}


def given(batch: Batch) -> dict[str, Tensor]:
    return {"target": batch.target, "weight": batch.weight}


def some_states(shape: tuple[int, int], num_states: int = 2, seed: int = 3) -> DiscreteMarkovChain:
    """A chain of states that is no product of its marginals."""
    generator = torch.Generator().manual_seed(seed)
    batch, steps = shape
    initial = torch.randn(batch, num_states, generator=generator, dtype=torch.float64)
    transition = torch.randn(
        batch, steps - 1, num_states, num_states, generator=generator, dtype=torch.float64
    )
    return DiscreteMarkovChain(initial.log_softmax(-1), (2 * transition).log_softmax(-1))


def test_averaged_path_is_the_dense_expectation_over_the_states():
    model = random_switching("gaussian", num_inputs=1)
    batch = simulate_switching(model, num_trials=2, num_bins=4)
    states = some_states((2, 4))
    densities = model.densities(batch.inputs, batch.time_mask)
    averaged = densities.averaged(states.probabilities)
    for trial in range(2):
        precision, information = 0, 0
        for number in range(2**4):
            path = tuple(number >> t & 1 for t in range(4))
            hot = torch.nn.functional.one_hot(torch.tensor(path), 2).double().expand(2, -1, -1)
            weight = states.log_prob(hot)[trial].exp()
            chain = chain_of(model, path, batch.inputs[trial])
            dense = chain.precision.dense()[0]
            precision = precision + weight * dense
            information = information + weight * dense @ chain.mean.flatten()
        assert_close(averaged.precision.dense()[trial], precision, rtol=0, atol=1e-10)
        mean = torch.linalg.solve(precision, information)
        assert_close(averaged.mean[trial].flatten(), mean, rtol=0, atol=1e-10)


def test_densities_given_the_states_are_those_of_the_path():
    model = random_switching("gaussian", num_inputs=1)
    batch = simulate_switching(model, num_trials=1, num_bins=5)
    densities = model.densities(batch.inputs, batch.time_mask)
    path = (0, 1, 1, 0, 1)
    hot = torch.nn.functional.one_hot(torch.tensor(path), 2).double()[None, None]
    chain = chain_of(model, path, batch.inputs[0])
    sample = chain.rsample((3,))
    prior = SwitchingMarkovChain(densities, hot.expand(3, -1, -1, -1), hot[0])
    assert_close(prior.log_prob(sample), chain.log_prob(sample), rtol=0, atol=1e-9)


def test_densities_first_asked_without_gradients_do_not_lose_them():
    model = random_switching("gaussian")
    noise = model.dynamics.noise_covariance.requires_grad_()
    inputs = torch.zeros(2, 5, model.dynamics.input_matrix.shape[-1]).double()
    mask, path = torch.ones(2, 5).bool(), torch.randn(2, 5, noise.shape[-1]).double()
    asked, fresh = model.densities(inputs, mask), model.densities(inputs, mask)
    with torch.no_grad():
        asked.log_density(path)
    gradients = [torch.autograd.grad(d.log_density(path).sum(), noise)[0] for d in (asked, fresh)]
    assert_close(*gradients)
    inverse = noise.detach().inverse()
    moves = (
        path[:, 1:, None]
        - torch.einsum("kij,btj->btki", model.dynamics.transition, path[:, :-1])
        - model.dynamics.offset
    )
    white = torch.einsum("kij,btkj->btki", inverse, moves)
    squares = torch.einsum("btki,btkj->kij", white, white)
    assert_close(gradients[0], 0.5 * (squares - 8 * inverse))


def test_expected_densities_are_means_over_paths():
    torch.manual_seed(0)
    model = random_switching("gaussian", num_inputs=1, num_states=3)
    batch = simulate_switching(model, num_trials=2, num_bins=4)
    densities = model.densities(batch.inputs, batch.time_mask)
    chain = model.densities(batch.inputs, batch.time_mask).averaged(
        some_states((2, 4), 3).probabilities
    )
    expected = densities.expected_log_density(chain.mean, chain.covariance, chain.cross_covariance)
    drawn = densities.log_density(chain.rsample((40_000,)))
    error = drawn.std(0) / 200
    assert ((drawn.mean(0) - expected).abs() < 5 * error).all()


def test_divergence_is_the_mean_log_ratio_over_paths_and_states():
    torch.manual_seed(0)
    model = random_switching("poisson", num_inputs=1)
    lengths = [6, 3, 0]
    batch = simulate_switching(model, num_trials=3, num_bins=6, lengths=lengths)
    mask = seen_bins(batch.weight)
    densities = model.densities(batch.inputs, mask)
    states = some_states((3, 6))
    q = densities.averaged(some_states((3, 6), seed=5).probabilities)
    number = 40_000
    state_sample, sample = states.sample((number,)), q.rsample((number,))
    prior = SwitchingMarkovChain(densities, state_sample, states.probabilities)
    latent = Latent(q, prior, sample, mask)
    ratio = log_ratio(latent)
    closed = kl_terms(latent)[0]
    assert closed.shape == (3, 6)
    assert (closed[~mask] == 0).all()
    error = ratio.std(0) / math.sqrt(number)
    assert ((ratio.mean(0) - closed.sum(1)).abs() <= 4 * error).all()


def test_seen_bins_end_with_the_last_weight():
    weight = torch.zeros(3, 5, 2)
    weight[0, 1, 0] = weight[0, 3, 1] = weight[1, 4] = 1
    wanted = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]).bool()
    assert torch.equal(seen_bins(weight), wanted)


@pytest.mark.parametrize("name", E_STEPS)
@pytest.mark.parametrize("num_states", [1, 3])
def test_equal_states_infer_as_one_linear_model_does(name, num_states):
    kind = "gaussian" if name == "exact" else "poisson"
    linear = random_model(kind, 2, num_inputs=1)
    batch = simulate(linear, num_trials=4, num_bins=9, lengths=[9, 9, 6, 1], missing=0.2)
    model = stacked(linear, num_states)
    mask = seen_bins(batch.weight)
    prior = linear.dynamics.chain(batch.inputs, lengths=mask.sum(1))
    one = converged(E_STEPS[name], prior, linear.emission, **given(batch), tolerance=1e-12)
    densities = model.densities(batch.inputs, mask)
    both = infer_switching(model, densities, E_STEPS[name], **given(batch), tolerance=1e-12)
    for part in ("mean", "covariance", "cross_covariance"):
        assert_close(getattr(both.path, part), getattr(one, part), rtol=0, atol=1e-9)
    terms = switching_bound(both, model, densities, **given(batch))
    wanted = path_bound(one, prior, linear.emission, **given(batch))
    assert_close(terms.elbo, wanted.elbo, rtol=0, atol=1e-9)
    assert_close(terms.kl_states, torch.zeros(4).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_bound_is_below_the_sum_over_all_paths_of_the_states(missing):
    model = random_switching("gaussian", num_inputs=1)
    batch = simulate_switching(model, num_trials=3, num_bins=6, missing=missing)
    densities = model.densities(batch.inputs, seen_bins(batch.weight))
    found = infer_switching(model, densities, exact, **given(batch))
    elbo = switching_bound(found, model, densities, **given(batch)).elbo
    for trial in range(3):
        gap = exact_log_evidence(model, batch, trial) - float(elbo[trial])
        assert 0 <= gap < 3.0


def test_sum_over_all_paths_is_reached_where_the_states_are_equal():
    model = stacked(random_model("gaussian", 2), 2)
    batch = simulate_switching(model, num_trials=1, num_bins=4)
    densities = model.densities(batch.inputs, batch.time_mask)
    found = infer_switching(model, densities, exact, **given(batch))
    elbo = switching_bound(found, model, densities, **given(batch)).elbo
    assert float(elbo) == pytest.approx(exact_log_evidence(model, batch, 0), abs=1e-9)


@pytest.mark.parametrize("name", ["exact", "variational"])
def test_no_turn_lowers_the_bound(name):
    model = random_switching("gaussian" if name == "exact" else "poisson", num_states=3)
    batch = simulate_switching(model, num_trials=5, num_bins=12, lengths=[12, 4, 12, 1, 7])
    densities = model.densities(batch.inputs, seen_bins(batch.weight))
    states, path, before = some_states((5, 12), 3), None, None
    for _ in range(15):
        found = infer_by_turns(
            model,
            densities,
            E_STEPS[name],
            **given(batch),
            probabilities=states.probabilities,
            last=path,
        )
        path, states = found
        elbo = switching_bound(found, model, densities, **given(batch)).elbo
        if before is not None:
            assert (elbo >= before - 1e-9 * before.abs()).all()
        before = elbo
    # the states are the best for the path: their bound is the evidence of its expected densities
    expected = densities.expected_log_density(path.mean, path.covariance, path.cross_covariance)
    evidence = model.switches.chain(5, 12).given(expected).log_evidence
    terms = switching_bound(found, model, densities, **given(batch))
    spent = (states.probabilities * expected).sum((1, 2)) - terms.kl_states
    assert_close(spent, evidence)


def test_a_trial_does_not_feel_the_others():
    model = random_switching("poisson")
    batch = simulate_switching(model, num_trials=4, num_bins=10)
    densities = model.densities(batch.inputs, batch.time_mask)
    together = infer_switching(model, densities, variational, **given(batch))
    alone = batch[2:3]
    densities = model.densities(alone.inputs, alone.time_mask)
    found = infer_switching(model, densities, variational, **given(alone))
    assert_close(found.path.mean[0], together.path.mean[2], rtol=0, atol=1e-10)
    wanted = together.states.probabilities[2]
    assert_close(found.states.probabilities[0], wanted, rtol=0, atol=1e-10)


def test_what_runs_on_has_the_moments_of_its_samples():
    torch.manual_seed(0)
    model = random_switching("poisson", num_inputs=1, num_states=3)
    inputs = torch.randn(3, 6, 1, dtype=torch.float64)
    mask = torch.arange(6) < torch.tensor([[6], [3], [0]])
    densities = model.densities(inputs, mask)
    states = model.switches.chain(3, 6).given(torch.randn(3, 6, 3).double() * mask[..., None])
    chain = densities.averaged(states.states.probabilities)
    moments = continued_moments(
        densities, states.states, mean=chain.mean, covariance=chain.covariance
    )
    number = 40_000
    hot = states.states.sample((number,))
    sample = continued_sample(densities, hot, chain.rsample((number,)))
    assert_close(sample.mean(0), moments.mean, rtol=0, atol=0.05)
    variance = moments.covariance.diagonal(dim1=-2, dim2=-1)
    assert_close(sample.var(0), variance, rtol=0.05, atol=0)
    assert_close(moments.mean[mask], chain.mean[mask])
    assert_close(moments.covariance[mask], chain.covariance[mask])


# --- learning -------------------------------------------------------------------------------------


def weak_penalty(model: SwitchingStateSpace, batch: Batch) -> SwitchingPenalty:
    densities = model.densities(batch.inputs, batch.time_mask)
    chain = densities.averaged(model.switches.chain(*batch.target.shape[:2]).probabilities)
    path = PathMoments(chain.mean, chain.covariance, chain.cross_covariance)
    links = LinkMoments.of(path, inputs=batch.inputs, weight=batch.time_mask[:, 1:].double())
    return SwitchingPenalty(1.0, 1.1, 5.0, links.scaled(4.0 / float(links.count)))


def test_m_step_is_where_the_expected_joint_density_is_greatest():
    model = random_switching("gaussian", num_inputs=1)
    batch = simulate_switching(model, num_trials=6, num_bins=10, lengths=[10, 8, 10, 3, 10, 1])
    mask, penalty = seen_bins(batch.weight), weak_penalty(model, batch)
    densities = model.densities(batch.inputs, mask)
    posterior = infer_switching(model, densities, exact, **given(batch))
    learned = maximize_switching(model, *posterior, batch=batch, mask=mask, penalty=penalty)

    def value(candidate: SwitchingStateSpace) -> float:
        own = candidate.densities(batch.inputs, mask)
        elbo = switching_bound(posterior, candidate, own, **given(batch)).elbo
        return float(elbo.sum()) - penalty.of(candidate)

    best = value(learned)
    assert best > value(model)
    generator = torch.Generator().manual_seed(0)
    for part in ("dynamics", "switches"):
        for name, tensor in vars(getattr(learned, part)).items():
            noise = 1e-3 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            if "covariance" in name:
                noise = noise @ tensor + tensor @ noise.mT
            moved = type(getattr(learned, part))(
                **(vars(getattr(learned, part)) | {name: tensor + noise})
            )
            if part == "switches":
                moved = Switches(
                    moved.log_initial.log_softmax(-1), moved.log_transition.log_softmax(-1)
                )
            assert value(learned._replace(**{part: moved})) < best


def test_a_state_without_a_step_keeps_to_what_was_seen_before():
    model = random_switching("poisson")
    batch = simulate_switching(model, num_trials=3, num_bins=8)
    penalty = weak_penalty(model, batch)
    never = torch.tensor([0.0, -torch.inf], dtype=torch.float64)
    states = DiscreteMarkovChain(never.expand(3, -1), never.expand(3, 7, 2, 2))
    densities = model.densities(batch.inputs, batch.time_mask)
    path = variational(densities.averaged(states.probabilities), model.emission, **given(batch))
    options = {"batch": batch, "mask": batch.time_mask}
    learned = maximize_switching(model, path, states, penalty=penalty, **options)
    assert penalty.links is not None
    pooled = penalty.links.regression()
    assert_close(learned.dynamics.transition[1], pooled[:, :2])
    assert learned.switches.log_transition.isfinite().all()
    free = SwitchingPenalty(1.0, 1.1, 5.0, None)
    learned = maximize_switching(model, path, states, penalty=free, **options)
    assert_close(learned.dynamics.transition[1], model.dynamics.transition[1])
    assert math.isfinite(free.of(learned))


def test_change_of_coordinates_and_names_changes_no_bound():
    model = random_switching("poisson", num_states=3, num_inputs=1)
    batch = simulate_switching(model, num_trials=3, num_bins=8)
    change = torch.tensor([[1.0, 0.4], [-0.3, 2.0]], dtype=torch.float64)
    other = model.transformed(change, torch.tensor([0.3, -1.0], dtype=torch.float64))
    other = other.ordered(torch.tensor([2, 0, 1]))
    elbos = []
    for one in (model, other):
        densities = one.densities(batch.inputs, batch.time_mask)
        found = infer_switching(one, densities, variational, **given(batch), tolerance=1e-10)
        elbos.append(switching_bound(found, one, densities, **given(batch)).elbo)
    assert_close(*elbos, rtol=1e-9, atol=1e-9)


def test_canonical_form_does_not_depend_on_where_it_came_from():
    model = random_switching("poisson", num_states=3, num_inputs=1)
    states = some_states((4, 9), 3)
    mask = torch.ones(4, 9, dtype=torch.bool)
    change = torch.tensor([[1.0, 0.4], [-0.3, 2.0]], dtype=torch.float64)
    order = torch.tensor([2, 0, 1])
    other = model.transformed(change, torch.tensor([0.3, -1.0]).double()).ordered(order)
    renamed = DiscreteMarkovChain(
        states.log_initial[:, order], states.log_transition[:, :, order][..., order]
    )
    one, two = (canonical_switching(m, s, mask) for m, s in ((model, states), (other, renamed)))
    for part in ("dynamics", "switches", "emission"):
        for name, tensor in vars(getattr(one, part)).items():
            assert_close(getattr(getattr(two, part), name), tensor, rtol=1e-8, atol=1e-8)
    square = one.emission.loadings.mT @ one.emission.loadings
    assert_close(square, square.diagonal().diag(), rtol=0, atol=1e-9)


def test_regimes_are_found_on_the_path():
    torch.manual_seed(0)
    model = random_switching("poisson", num_neurons=30)
    sticky = torch.tensor([[0.97, 0.03], [0.03, 0.97]], dtype=torch.float64).log()
    angles = torch.tensor([0.6, -0.2])
    turns = [torch.tensor([[a.cos(), -a.sin()], [a.sin(), a.cos()]]).double() for a in angles]
    dynamics = model.dynamics
    dynamics = type(dynamics)(
        **(
            vars(dynamics)
            | {
                "transition": 0.98 * torch.stack(turns),
                "offset": 0 * dynamics.offset,
                "noise_covariance": 0.04 * torch.eye(2).double().expand(2, 2, 2),
            }
        )
    )
    model = SwitchingStateSpace(
        dynamics, Switches(model.switches.log_initial, sticky), model.emission
    )
    inputs = torch.zeros(30, 80, 0, dtype=torch.float64)
    nothing = torch.zeros(30, 80, dtype=torch.bool)
    states = model.switches.chain(30, 80).sample((1,))
    path = continued_sample(
        model.densities(inputs, nothing), states, inputs.new_zeros(1, 30, 80, 2)
    )
    moments = PathMoments(
        path[0], 0.01 * torch.eye(2).double().expand(1, 80, 2, 2), torch.zeros(1, 79, 2, 2).double()
    )
    batch = simulate_switching(model, num_trials=30, num_bins=80)
    one = random_model("poisson", 2)
    learned, found = begin_switching(
        one,
        moments,
        batch=batch,
        mask=~nothing,
        num_states=2,
        penalty=SwitchingPenalty(1.0, 1.1, 5.0, None),
        window=10,
        seed=0,
    )
    same = (found.probabilities.argmax(-1) == states[0].argmax(-1)).double().mean()
    assert max(float(same), 1 - float(same)) > 0.93
    turned = torch.linalg.eigvals(learned.dynamics.transition).angle().abs().amax(-1).sort().values
    assert_close(turned, torch.tensor([0.2, 0.6]).double(), rtol=0, atol=0.02)
