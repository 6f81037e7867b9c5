from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import special, stats

from seqvae.analysis.evaluation import evaluate_model
from seqvae.models import PCA
from seqvae.scores.ceiling import Ceiling, ModelSums, Repeats, ceiling_words
from seqvae.verbs.evaluate import score_table
from tiny import LORENZ, SVAE, in_memory

CONDITIONS, TRIALS, BINS, NEURONS = 4, 6, 5, 3


def gathered(draw, truth, *, null, trials=TRIALS):
    """Repeats of drawn trials, and how the true rates score."""
    condition = torch.arange(CONDITIONS).repeat(trials)
    target = torch.from_numpy(draw(truth[condition.numpy()]))
    weight = torch.ones_like(target)
    weight[0, 0, 0] = 0
    repeats = Repeats(CONDITIONS, (BINS, NEURONS))
    for part in (slice(None, 7), slice(7, None)):
        repeats.update(target[part], weight[part], condition[part])
    sums = ModelSums(repeats, torch.full((NEURONS,), null), torch.ones(BINS, NEURONS, dtype=bool))
    sums.update(torch.from_numpy(truth)[condition], target, weight, condition)
    return sums


def test_the_ceiling_of_variance_is_that_of_the_true_rate_whatever_the_noise():
    generator = np.random.default_rng(0)
    truth = generator.gamma(2.0, 1.0, (CONDITIONS, BINS, NEURONS))
    for draw in (
        lambda mean: generator.poisson(mean).astype(float),
        lambda mean: generator.normal(mean, 2.0),
        lambda mean: generator.gamma(0.3, mean / 0.3),
    ):
        found = [gathered(draw, truth, null=1.5) for _ in range(120)]
        ceilings = [one.variance() for one in found]
        errors = [one.upper - one.model for one in ceilings]  # the model is the true rate
        assert abs(np.mean(errors)) < 3.5 * stats.sem(errors)
        assert {one.share for one in ceilings} == {1.0}


def test_the_ceiling_of_bits_is_that_of_the_true_rate_and_what_is_proven_above_it():
    generator = np.random.default_rng(1)
    for scale in (0.05, 2.0):
        truth = scale * generator.gamma(2.0, 1.0, (CONDITIONS, BINS, NEURONS))
        found = [
            gathered(lambda mean: generator.poisson(mean).astype(float), truth, null=scale)
            for _ in range(120)
        ]
        excess = [float(one.repeats.log_likelihood().sum()) - one.log_likelihood for one in found]
        number = found[0].repeats.number.numpy()
        expected = number * truth * special.exp1(2 * number * truth)
        assert abs(np.mean(excess) - expected.sum()) < 3.5 * stats.sem(excess)
        assert found[0].bits().upper > found[0].bits().model - 0.5


def test_more_than_poisson_only_raises_the_ceiling_of_bits():
    generator = np.random.default_rng(2)
    truth = generator.gamma(4.0, 0.5, (CONDITIONS, BINS, NEURONS))
    draw = lambda mean: generator.poisson(generator.gamma(1.0, mean)).astype(float)  # noqa: E731
    found = [gathered(draw, truth, null=2.0).bits() for _ in range(100)]
    assert np.mean([one.upper - one.model for one in found]) > 0


def test_what_comes_once_has_no_ceiling():
    sums = gathered(lambda mean: mean, np.ones((CONDITIONS, BINS, NEURONS)), null=1.0, trials=1)
    assert not sums.repeats.come_again.any()
    assert sums.share == 0


def with_conditions(num_conditions):
    recording = LORENZ.load()
    return replace(recording, condition=np.arange(recording.num_trials) % num_conditions)


def test_repeats_set_a_ceiling_beside_the_scores_and_change_none():
    scores = []
    for num_conditions in (24, 2):  # of 24 trials: none comes again
        data = in_memory(with_conditions(num_conditions))
        data.setup()
        torch.manual_seed(0)
        model = SVAE(data.spec)
        model.initialize(data)
        scores.append(evaluate_model(model, data, split="val", num_samples=5, seed=0))
    plain, told = scores
    assert "ceiling" not in plain
    assert "ceiling of" not in score_table(plain)
    assert set(told["ceiling"]) == {"variance_explained", "bits_per_spike", "co_bps"}
    for name in ("bits_per_spike", "co_bps"):
        ceiling = told["ceiling"][name]
        assert ceiling["model"] == pytest.approx(told[name], abs=1e-6)
        assert ceiling["lower"] == told["baselines"]["condition_mean"][name]
        assert np.isfinite(ceiling["upper"])
    assert "ceiling of co_bps: the rate of the condition" in score_table(told)
    assert {name: plain[name] for name in plain if isinstance(plain[name], float)}.items() <= {
        name: told[name] for name in told if isinstance(told[name], float)
    }.items()


def test_a_ceiling_is_told_in_a_sentence():
    told = Ceiling.of(0.1, 0.2, share=0.75)._replace(lower=0.15)._asdict()
    assert ceiling_words("co_bps", told) == (
        "co_bps: the rate of the condition alone could reach 0.1500 (condition mean) to at most "
        "0.2000; the model reaches 0.1000 (50 %), both of the 75 % of entries that come again"
    )
    beyond = Ceiling.of(0.3, 0.2, share=1.0)._asdict()
    assert ceiling_words("co_bps", beyond) == (
        "co_bps: the rate of the condition alone could reach at most 0.2000; the model reaches "
        "0.3000, beyond it, as single trials of a condition differ"
    )
    none = Ceiling.of(0.1, -0.2, share=1.0)
    assert np.isnan(none.fraction)
    assert ceiling_words("variance_explained", none._asdict()) == (
        "variance_explained: the rate of the condition is not seen to differ from the mean rate "
        "(-0.2000); the model reaches 0.1000"
    )


def test_of_real_values_the_share_of_variance_has_a_ceiling():
    from functools import partial

    from seqvae.observations import Gaussian

    recording = with_conditions(3)
    values = np.random.default_rng(0).standard_normal(recording.shape).astype(np.float32)
    data = in_memory(replace(recording, activity=values, rates=None))
    data.setup()
    model = partial(PCA, latent_dim=1, observation=Gaussian, smoothing=0.0)(data.spec)
    model.initialize(data)
    found = evaluate_model(model, data, split="val", num_samples=2, seed=0)["ceiling"]
    assert set(found) == {"variance_explained"}
    assert abs(found["variance_explained"]["upper"]) < 0.3
    assert found["variance_explained"]["lower"] is None
