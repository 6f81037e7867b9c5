from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from seqvae import fit
from seqvae.analysis.evaluation import evaluate_model
from seqvae.baselines.mean_rate import MeanRate
from seqvae.console.main import main
from seqvae.data.sources import Arrays
from seqvae.distributions.kinds import Binary, Counts, Real
from seqvae.errors import InputError
from seqvae.models import VAE, AmortisedModel, LinearDynamics
from seqvae.observations import Gaussian
from seqvae.scores.gain import paired_gain
from seqvae.types import Moments
from seqvae.verbs.evaluate import neuron_table
from seqvae.verbs.opening import without_nan
from tiny import LORENZ, SVAE, silent_heldout, tiny_data, tiny_learner


def test_gain_of_equal_trials_is_a_mean_and_its_standard_error():
    difference = torch.randn(40, dtype=torch.float64)
    gain = paired_gain(difference, torch.full((40,), 3.0, dtype=torch.float64))
    each = difference.numpy() / 3
    assert gain.mean == pytest.approx(each.mean())
    assert gain.standard_error == pytest.approx(stats.sem(each))


def test_standard_error_of_unequal_trials_is_the_spread_over_repetitions():
    generator = np.random.default_rng(0)
    gains = []
    for _ in range(1500):
        size = generator.gamma(4.0, 1.0, size=60)
        difference = generator.normal(0.3 * size, 0.5 * np.sqrt(size))
        gains.append(paired_gain(torch.from_numpy(difference), torch.from_numpy(size)))
    means, errors = np.transpose(gains)
    assert means.mean() == pytest.approx(0.3, abs=4 * means.std() / math.sqrt(1500))
    assert errors.mean() == pytest.approx(means.std(), rel=0.07)


def test_gain_needs_two_trials_and_a_spike():
    assert paired_gain(torch.ones(1), torch.ones(1)) is None
    assert paired_gain(torch.zeros(3), torch.zeros(3)) is None


def test_gain_is_the_difference_of_the_scores_of_what_was_held_out():
    data = tiny_data()
    data.setup()
    model = SVAE(data.spec)
    model.initialize(data)
    found = evaluate_model(model, data, split="val", num_samples=5, seed=0)
    assert set(found["gain"]) == set(found["baselines"]) == {
        "mean_rate", "smoothing_glm", "true_rates",
    }  # fmt: skip
    for name, row in found["baselines"].items():
        expected = found["co_bps"] - row["co_bps"]
        assert found["gain"][name]["mean"] == pytest.approx(expected, abs=1e-5)
        assert found["gain"][name]["standard_error"] > 0


def test_evidence_that_a_model_knows_stands_beside_its_bound():
    data = tiny_data()
    data.setup()
    torch.manual_seed(0)
    for make, known in ((SVAE, False), (partial(LinearDynamics, latent_dim=2), True)):
        model = make(data.spec)
        model.initialize(data)
        found = evaluate_model(model, data, split="val", num_samples=200, seed=0)
        assert ("laplace_evidence" in found) == known
    assert found["laplace_evidence"] == pytest.approx(found["heldin_elbo"], abs=0.5)


@pytest.mark.parametrize("make", [SVAE, partial(VAE, latent_dim=3)], ids=["svae", "vae"])
def test_refining_stands_beside_the_scores_and_changes_none_of_them(make):
    data = tiny_data()
    data.setup()
    torch.manual_seed(0)
    model = make(data.spec)
    model.initialize(data)
    plain = evaluate_model(model, data, split="val", num_samples=20, seed=0)
    found = evaluate_model(model, data, split="val", num_samples=20, seed=0, refine_steps=40)
    added = {"elbo_refined", "amortisation_gap", "refined"}
    assert set(found) == set(plain) | added
    assert {name: found[name] for name in plain} == plain
    assert found["amortisation_gap"] > 0
    assert found["elbo_refined"] > found["heldin_elbo"]
    assert found["refined"]["heldin_elbo"] == pytest.approx(found["elbo_refined"], abs=3)


@pytest.mark.parametrize("make", [SVAE, partial(LinearDynamics, latent_dim=2)], ids=["svae", "lds"])
def test_no_score_depends_on_chunks_or_batch_sizes(make, monkeypatch):
    """The noise is bitwise the same; products over fewer trials may round in another way."""
    found = []
    for size, eval_batch_size in ((256, 256), (1, 3)):
        data = tiny_data(eval_batch_size=eval_batch_size)
        data.setup()
        torch.manual_seed(0)
        model = make(data.spec)
        model.initialize(data)
        entries = size * 6 * data.spec.num_time_bins * 256
        monkeypatch.setattr("seqvae.analysis.posterior.MAX_ENTRIES", entries)
        steps = 10 if isinstance(model, AmortisedModel) else 0
        options = {"num_samples": 6, "seed": 0, "refine_steps": steps}
        scores = flat(evaluate_model(model, data, split="val", **options))
        assert scores.pop("split/") == "val"
        assert {scores.pop(name) for name in list(scores) if name.endswith("unit/")} <= {
            "bits per spike"
        }
        found.append(scores)
    for other in found[1:]:
        assert list(other) == list(found[0])
        for name, value in found[0].items():
            assert other[name] == pytest.approx(value, rel=2e-5, abs=2e-5, nan_ok=True), name


def flat(tree, prefix=""):
    """All scores of a tree by their paths."""
    if isinstance(tree, dict):
        parts = [flat(value, f"{prefix}{name}/") for name, value in tree.items()]
        return {name: value for part in parts for name, value in part.items()}
    return {prefix: tree}


def test_use_of_the_latents_is_told():
    data = tiny_data()
    data.setup()
    torch.manual_seed(0)
    model = SVAE(data.spec)
    model.initialize(data)
    found = evaluate_model(model, data, split="val", num_samples=5, seed=0)
    assert set(found["latents"]) == {"initial_condition", "inferred_inputs"}
    for name, use in found["latents"].items():
        assert found[f"active_units/{name}"] == use["active_units"]
        assert sum(use["kl"]) == pytest.approx(found[f"kl/{name}"], rel=1e-5)
    linear = LinearDynamics(data.spec, latent_dim=2)
    linear.initialize(data)
    assert evaluate_model(linear, data, split="val", num_samples=2, seed=0)["latents"] == {}


def test_a_model_without_an_encoder_is_not_refined():
    data = tiny_data()
    data.setup()
    model = LinearDynamics(data.spec, latent_dim=2)
    model.initialize(data)
    with pytest.raises(InputError, match="set refine_steps to 0"):
        evaluate_model(model, data, split="val", num_samples=2, seed=0, refine_steps=3)


@pytest.mark.parametrize(
    ("kind", "log_density"),
    [
        (Counts(), lambda x, mean, std: stats.poisson.logpmf(x, mean)),
        (Binary(), lambda x, mean, std: stats.bernoulli.logpmf(x, mean)),
        (Real(), lambda x, mean, std: stats.norm.logpdf(x, mean, std)),
    ],
)
def test_densities_of_the_baselines_are_those_of_scipy(kind, log_density):
    mean = torch.rand(2, 3, 4, dtype=torch.float64) * 0.8 + 0.1
    std = torch.rand(4, dtype=torch.float64) + 0.5
    x = torch.bernoulli(mean)
    expected = log_density(x.numpy(), mean.numpy(), std.numpy())
    moments = Moments(mean[0, 0], 2 * std, torch.ones(4, dtype=torch.float64))
    emission = MeanRate(kind, moments).around(mean, std)
    np.testing.assert_allclose(emission.log_prob(x), expected, rtol=1e-9)


def scores_by_neuron(source=None, **settings):
    data = tiny_data(*([] if source is None else [source]), **settings)
    data.setup()
    torch.manual_seed(0)
    model = SVAE(data.spec)
    model.initialize(data)
    return evaluate_model(model, data, split="val", num_samples=3, seed=0, per_neuron=True), data


@pytest.mark.parametrize("has_heldout", [True, False])
def test_neurons_weighted_by_their_spikes_are_the_scores_of_all(has_heldout):
    source = LORENZ if has_heldout else replace(LORENZ, num_heldout=0)
    scores, data = scores_by_neuron(source)
    rows = scores["per_neuron"]
    assert [row["id"] for row in rows] == data.recording.neuron_ids.tolist()
    assert [n for n, row in enumerate(rows) if row["group"] == "heldout"] == list(data.spec.heldout)
    for group, name in (("heldin", "bits_per_spike"), ("heldout", "co_bps")):
        members = [row for row in rows if row["group"] == group]
        spikes = np.array([row["spikes"] for row in members])
        if not members:
            assert not has_heldout
            continue
        columns = {"model": scores, **scores["baselines"]}
        del columns["mean_rate"]  # 0 by definition
        assert list(members[0]["baselines"]) == list(columns)[1:]
        for label, pooled in columns.items():
            each = [{**row["baselines"], "model": row["bits_per_spike"]}[label] for row in members]
            assert spikes @ each / spikes.sum() == pytest.approx(pooled[name], abs=1e-9)
        total = sum(row["bits"] for row in members)
        assert total / spikes.sum() == pytest.approx(scores[name], abs=1e-9)
        activity = data.recording.read(data.trials("val"))
        neurons = [n for n, row in enumerate(rows) if row["group"] == group]
        assert np.array_equal(spikes, activity.sum((0, 1))[neurons])


def test_a_neuron_without_a_scored_spike_has_no_bits_per_spike():
    scores, data = scores_by_neuron(Arrays(silent_heldout(LORENZ.load())))
    rows = scores["per_neuron"]
    for n, row in enumerate(rows):
        silent = n in data.spec.heldout
        assert (row["spikes"] == 0) == math.isnan(row["bits_per_spike"]) == silent
        assert math.isfinite(row["bits"])
    table = neuron_table(rows)
    assert table[0].split() == [
        "neuron",
        "group",
        "spikes",
        "bits_per_spike",
        *rows[0]["baselines"],
    ]
    cells = table[1 + data.spec.heldout[0]].split()
    assert cells[1:] == ["heldout", "0", *["-"] * (1 + len(rows[0]["baselines"]))]
    json.dumps(without_nan(rows), allow_nan=False)


def test_neurons_of_real_values_have_log_likelihoods_per_entry():
    recording = LORENZ.load()
    values = np.random.default_rng(0).normal(recording.activity, 0.5).astype(np.float32)
    values[:, 3:] = np.nan  # bins that were not measured
    data = tiny_data(Arrays(replace(recording, activity=values, rates=None)))
    data.setup()
    model = partial(SVAE, observation=Gaussian)(data.spec)
    model.initialize(data)
    scores = evaluate_model(model, data, split="val", num_samples=3, seed=0, per_neuron=True)
    rows = scores["per_neuron"]
    assert "bits" not in rows[0]
    assert list(rows[0]["baselines"]) == ["mean_rate", "smoothing_glm"]
    entries = np.array([row["entries"] for row in rows])
    assert (entries == 3 * len(data.trials("val"))).all()
    for label, pooled in {"model": scores, **scores["baselines"]}.items():
        each = [{**row["baselines"], "model": row["log_likelihood"]}[label] for row in rows]
        assert entries @ each / entries.sum() == pytest.approx(pooled["log_likelihood"], rel=1e-6)


@pytest.mark.parametrize("num_neurons", [39, 40, 1000])
def test_of_many_neurons_40_lines_are_printed(num_neurons):
    row = {"group": "heldin", "spikes": 3.0, "bits": 1.5, "bits_per_spike": 0.5, "baselines": {}}
    table = neuron_table([{"id": f"unit{n}", **row} for n in range(num_neurons)])
    assert len(table) == 40
    assert (table[-1] == f"and {num_neurons - 38} more, in the file (out)") == (num_neurons > 39)
    assert table[38].split() == ["unit37", "heldin", "3", "0.5000"]


def test_command_line_scores_each_neuron_and_writes_them(tmp_path, capsys):
    fit(tiny_data(), SVAE, tiny_learner(1), run_dir=str(tmp_path / "run"))
    out = tmp_path / "metrics.json"
    argv = ["evaluate", "--run", str(tmp_path / "run"), "--num_samples", "2"]
    main([*argv, "--per_neuron", "--out", str(out)])
    written = json.loads(out.read_text())["per_neuron"]
    assert len(written) == 6
    shown = capsys.readouterr().out.splitlines()
    (start,) = [n for n, line in enumerate(shown) if line.split()[:2] == ["neuron", "group"]]
    assert shown[start + 1].split()[3] == f"{written[0]['bits_per_spike']:.4f}"
    main(argv)
    assert "neuron  group" not in capsys.readouterr().out
