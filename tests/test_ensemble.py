"""Several fitted models of one recording as one run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

from seqvae import (
    EM,
    VAE,
    Ensemble,
    InputError,
    LinearDynamics,
    Run,
    audit,
    ensemble,
    evaluate,
    fit,
    infer,
)
from seqvae.analysis.posterior import deterministic
from seqvae.analysis.stacking import best_weights, stacked_weights
from seqvae.console.main import main
from seqvae.data.sources import Arrays, write_hdf5
from seqvae.distributions import Mixed, NegativeBinomialLogMean, PoissonLogRate
from seqvae.learning.observers.figures import draw_figures
from seqvae.models import Mixture
from seqvae.models.scores import sample_moments
from seqvae.observations import Gaussian, NegativeBinomial
from tiny import LORENZ, SVAE, first_inequality, in_memory, tiny_data, tiny_learner, weights

QUIET = partial(EM, max_iterations=3, progress=False)
MEMBERS = {
    "svae": (SVAE, tiny_learner(2), 4),
    "plds": (partial(LinearDynamics, latent_dim=2), QUIET(), 0),
    "nb": (
        partial(VAE, latent_dim=2, factor_dim=4, observation=NegativeBinomial),
        tiny_learner(2),
        7,
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of a recurrent, a linear and an overdispersed model, fitted with three seeds."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
        for name, (model, learner, seed) in MEMBERS.items():
            fit(tiny_data(), model, learner, seed=seed, run_dir=str(place / name))
        ensemble([str(place / name) for name in MEMBERS], run_dir=str(place / "all"))
    return place


@pytest.fixture(autouse=True)
def place(folder, monkeypatch, request):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
    monkeypatch.chdir(folder)


@pytest.fixture
def whole(folder):
    return Run(folder / "all")


def rates_of(*names: str, **settings) -> list[np.ndarray]:
    return [infer(name, num_samples=5, **settings)["rates"].values for name in names]


# --- what it predicts -----------------------------------------------------------------------------


def test_rates_are_the_mean_of_the_members_rates_and_sd_that_of_their_mixture(whole):
    members = [infer(name, num_samples=5) for name in MEMBERS]
    answer = infer(whole, num_samples=5)
    mean = np.mean([member["rates"] for member in members], axis=0)
    assert answer["rates"].values == pytest.approx(mean, rel=1e-5)
    second = [member["rates_sd"] ** 2 + member["rates"] ** 2 for member in members]
    spread = np.sqrt(np.mean(second, axis=0) - mean**2)
    assert answer["rates_sd"].values == pytest.approx(spread, rel=1e-3, abs=1e-3)
    assert "elbo" not in answer


def test_factors_of_each_member_are_found_by_its_name(whole):
    answer = infer(whole, num_samples=5)
    for name in MEMBERS:
        own, its = infer(name, num_samples=5), answer.sel(factor=answer.member == name)
        assert its["factors"].values == pytest.approx(own["factors"].values, rel=1e-5, abs=1e-6)
        assert its["factors_sd"].values == pytest.approx(own["factors_sd"].values, abs=1e-5)


def test_scores_are_those_of_the_mean_of_rates_taken_by_hand(folder):
    """Of rates that ``infer`` tells of each member, weighted; all from the command line."""
    shares, names = [0.5, 0.2, 0.3], list(MEMBERS)
    argv = ["ensemble", "--runs", *names, "--weights", str(shares), "--run_dir", "weighted"]
    assert main(argv) == 0
    assert main(["evaluate", "--run", "weighted", "--num_samples", "5", "--out", "m.json"]) == 0
    for name in names:
        argv = ["infer", "--run", name, "--split", "val", "--num_samples", "5"]
        assert main([*argv, "--out", f"{name}.nc"]) == 0
    rates = [xr.load_dataset(f"{name}.nc")["rates"].values for name in names]
    data = tiny_data()
    data.setup()
    heldout = list(data.spec.heldout)
    counts = data.recording.read(data.trials("val"))[..., heldout]
    null = data.train_mean.numpy()[heldout]

    def bits(mean: np.ndarray) -> float:
        gain = stats.poisson.logpmf(counts, mean) - stats.poisson.logpmf(counts, null)
        return float(gain.sum() / np.log(2) / counts.sum())

    scores = json.loads(Path("m.json").read_text())
    mean = np.einsum("m,mtbn->tbn", shares, rates)[..., heldout] * data.spec.bin_width
    assert scores["co_bps"] == pytest.approx(bits(mean), abs=1e-5)
    for name, its in zip(names, rates, strict=True):
        alone = bits(its[..., heldout] * data.spec.bin_width)
        assert scores["members"][name]["co_bps"] == pytest.approx(alone, abs=1e-5)
        gain = scores["gain_over_members"][name]
        assert gain["mean"] == pytest.approx(scores["co_bps"] - alone, abs=1e-5)
        assert gain["standard_error"] > 0
    own = evaluate("nb", num_samples=5)
    for key in ("co_bps", "bits_per_spike", "log_likelihood", "rates_r2"):
        assert scores["members"]["nb"][key] == pytest.approx(own[key], abs=1e-6)
    assert not {"elbo", "heldin_elbo", "iwae", "advice"} & set(scores)


def test_log_likelihood_is_that_of_the_mixture(whole):
    """Against the definition: the log of the mean density over members and samples."""
    model, data = whole.model(), whole.data()
    batch = data.batch(data.trials("val"))
    with deterministic(model, 0):
        expected = model.expectations(output := model(batch, 4), batch)
        log_probs = [answer.emission.log_prob(batch.target) for answer in output.members]
        mixed = output.emission.log_prob(batch.target)
    densities = [one.double().exp().mean(0) for one in log_probs]
    closed = torch.stack([part.log_predictive for part in expected.members.values()])
    sampled = torch.stack(densities).mean(0).log()
    inexact = [i for i, name in enumerate(model.names) if name != "plds"]
    assert closed[inexact].double().exp().numpy() == pytest.approx(
        torch.stack(densities)[inexact].numpy(), rel=1e-4
    )
    mixture = closed.double().exp().mean(0).log()
    assert expected.log_predictive.numpy() == pytest.approx(mixture.numpy(), abs=1e-5)
    assert mixed.exp().mean(0).log().numpy() == pytest.approx(sampled.numpy(), abs=1e-4)


def test_members_answer_bit_for_bit_as_their_own_runs(whole):
    model = whole.model()
    for name, member in model.by_name.items():
        alone = Run(name)
        saved = weights(Path(name) / "weights.pt")["state_dict"]
        assert first_inequality(dict(member.state_dict()), saved) is None
        batch = alone.data().batch([3, 20])
        with deterministic(model, whole.seed):
            answer = model(batch, 3)
        with deterministic(alone.model(), alone.seed):
            expected = alone.model()(batch, 3)
        its = answer.members[model.names.index(name)]
        assert torch.equal(its.factors, expected.factors)
        assert torch.equal(its.emission.mean, expected.emission.mean)


def test_heldout_values_change_no_rate():
    """Held-out neurons and whatever lies in them may be anything."""
    recording = LORENZ.load()
    other = recording.activity.copy()
    heldout = np.setdiff1d(np.arange(recording.num_neurons), recording.heldin)
    other[..., heldout] = np.random.default_rng(1).integers(0, 50, other[..., heldout].shape)
    one, two = (
        infer("all", in_memory(source), num_samples=3)
        for source in (recording, replace(recording, activity=other))
    )
    for name in ("rates", "rates_sd", "factors"):
        assert np.array_equal(one[name].values, two[name].values)


def test_other_data_one_chunk_or_many_and_single_neurons(whole, monkeypatch):
    write_hdf5(replace(LORENZ.load().select(np.arange(5)), split=None), "new.h5")
    assert main(["infer", "--run", "all", "--data.source.path", "new.h5", "--out", "n.nc"]) == 0
    assert xr.load_dataset("n.nc").sizes["trial"] == 5
    scores = evaluate(whole, "new.h5", num_samples=3, per_neuron=True)
    assert len(scores["per_neuron"]) == 6
    assert set(scores["members"]) == set(MEMBERS)
    at_once = infer(whole, num_samples=3)
    monkeypatch.setattr("seqvae.analysis.posterior.MAX_ENTRIES", 1)
    assert infer(whole, num_samples=3)["rates"].values == pytest.approx(
        at_once["rates"].values, rel=1e-5
    )


def test_figures_are_drawn(whole):
    assert {"rasters_and_rates", "rate_traces", "latents"} <= set(
        draw_figures(whole.model(), whole.data(), [])
    )


def test_real_values_are_scored_by_the_mixture_of_densities():
    data = in_memory(replace(LORENZ.load(), activity=LORENZ.load().activity + 0.5))
    real = partial(LinearDynamics, observation=Gaussian)
    models = (partial(real, latent_dim=1), partial(real, latent_dim=2))
    runs = [fit(data, model, QUIET(), in_memory=True) for model in models]
    together = Ensemble(runs)
    scores = evaluate(together, num_samples=3)
    assert scores["gain_over_members"]["lineardynamics_2"]["unit"] == "nats per entry"
    means = [infer(run, num_samples=3)["mean"].values for run in runs]
    answer = infer(together, num_samples=3)["mean"].values
    assert answer == pytest.approx(np.mean(means, axis=0), rel=1e-4, abs=1e-5)


# --- the run folder -------------------------------------------------------------------------------


def test_a_saved_ensemble_needs_its_members_no_more(folder, tmp_path):
    before = infer("all", num_samples=3)
    shutil.copytree("all", tmp_path / "alone")
    again = Run(tmp_path / "alone")
    assert infer(again, num_samples=3).equals(before)
    assert again.hash == Run("all").hash == Ensemble(list(MEMBERS)).hash
    note = again.provenance["members"]["plds"]
    assert note["hash"] == Run("plds").hash
    assert note["provenance"]["config"] == json.loads(json.dumps(Run("plds").config))
    assert len(note["weights"]) == 16


def test_an_ensemble_in_memory_is_the_same(whole):
    together = Ensemble([Run(name) for name in MEMBERS])
    assert infer(together, num_samples=3).equals(infer(whole, num_samples=3))


def test_an_ensemble_is_not_learned(capsys):
    assert main(["fit", "--from_run", "all", "--run_dir", "x"]) == 2
    assert "all is an ensemble (of svae, plds, nb), which is not learned" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"init_from: all is an ensemble; begin with a member \("):
        fit(tiny_data(), SVAE, tiny_learner(1), init_from="all", run_dir="x")
    with pytest.raises(InputError, match="an ensemble has no latents of its own; audit"):
        audit("all")
    with pytest.raises(InputError, match="no learner knows Mixture"):
        fit(tiny_data(), partial(Mixture, members={"a": SVAE}), run_dir="x")
    assert not Path("x").exists()


def test_a_table_tells_the_members_and_the_gain_over_each(capsys):
    assert main(["evaluate", "--run", "all", "--num_samples", "2"]) == 0
    text = capsys.readouterr().out
    assert "member svae" in text
    assert "gain over member plds on what the model did not see: " in text


def test_members_name_trusted_classes_only(tmp_path):
    shutil.copytree("all", tmp_path / "foreign")
    path = tmp_path / "foreign" / "config.yaml"
    path.write_text(path.read_text().replace("seqvae.encoders.MLP", "os.path.join"))
    with pytest.raises(InputError, match=r"'os\.path\.join' is no class of seqvae"):
        Run(tmp_path / "foreign").model()


def test_a_damaged_note_of_a_member_is_told(tmp_path):
    shutil.copytree("all", tmp_path / "bad")
    path = tmp_path / "bad" / "provenance.json"
    content = json.loads(path.read_text())
    content["members"]["plds"]["weights"] = 3
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"provenance\.json is damaged"):
        Run(tmp_path / "bad")


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runs", "options", "sentence"),
    [
        ([], {}, "runs: an ensemble has at least two members, got 0"),
        ("svae", {}, "runs: an ensemble has at least two members, got 1"),
        (["svae", "nowhere"], {}, "runs: run 'nowhere' does not exist"),
        (["svae", "plds", "svae"], {}, "runs: 'svae' and 'svae' are the same fit"),
        (["svae", "all"], {}, r"runs: 'all' is an ensemble itself; give its members \(.*svae, "),
        (["svae", "plds"], {"weights": [1.2, -0.2]}, "weights: that of plds must be at least 0"),
        (["svae", "plds"], {"weights": [0.5, 0.6]}, "weights must have the sum 1, got 1.1"),
        (["svae", "plds"], {"weights": [1.0]}, "weights: give one for each of 2 runs, got 1"),
        (["svae", "plds"], {"run_dir": "plds"}, "run_dir 'plds' is not empty"),
    ],
)
def test_what_makes_no_ensemble_is_refused_and_nothing_written(runs, options, sentence):
    with pytest.raises(InputError, match=sentence):
        ensemble(runs, **{"run_dir": "refused", **options})
    assert not Path("refused").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--runs", "svae"], "at least two members, got 1"),
        ([], "runs is required: give --runs FOLDER FOLDER"),
        (["--runs", "svae", "plds", "--weights", "best"], "weights must be"),
        (["--runs", "[svae, nowhere]"], "run 'nowhere' does not exist"),
    ],
)
def test_a_command_that_makes_no_ensemble_is_refused(flags, sentence, capsys):
    assert main(["ensemble", *flags, "--run_dir", "refused"]) == 2
    assert sentence in capsys.readouterr().err


def refused(sentence: str, **settings) -> None:
    """A member of other data is refused."""
    source = settings.pop("source", LORENZ)
    model = settings.pop("model", partial(LinearDynamics, latent_dim=1))
    other = fit(tiny_data(source, **settings), model, QUIET(), in_memory=True)
    with pytest.raises(InputError, match=f"runs: lineardynamics has {sentence}"):
        Ensemble(["plds", other])


def test_members_of_other_data_are_refused():
    recording = LORENZ.load()
    named = replace(recording, neuron_ids=np.array(list("abcdef")))
    swapped = replace(recording, neuron_ids=np.array(list("abcdfe")))
    first = fit(in_memory(named), MEMBERS["plds"][0], QUIET(), in_memory=True)
    other = fit(in_memory(swapped), MEMBERS["plds"][0], QUIET(), in_memory=True)
    with pytest.raises(InputError, match="has as neuron 4 f, but lineardynamics_1 e"):
        Ensemble([first, other])
    later = replace(recording, activity=recording.activity + 1)
    refused("a recording with the checksum", source=Arrays(later))
    refused(r"as held-in neurons \(0, 1, 2\)", heldout=[3, 4, 5])
    refused("forecast bins: 3", forecast_bins=3)
    refused("a number of neurons 7", source=replace(LORENZ, num_neurons=7))
    refused("a bin width of 0.02", source=replace(LORENZ, bin_width=0.02))
    refused(
        "data of the kind real",
        model=partial(LinearDynamics, latent_dim=1, observation=Gaussian),
    )


def test_members_whose_trials_are_split_otherwise_are_refused():
    data = [in_memory(replace(LORENZ.load(), split=None), split_seed=seed) for seed in (0, 0, 1)]
    models = [partial(LinearDynamics, latent_dim=size) for size in (1, 2, 2)]
    pairs = zip(data, models, strict=True)
    runs = [fit(one, model, QUIET(), in_memory=True) for one, model in pairs]
    assert len(infer(Ensemble(runs[:2]), num_samples=2)["trial"]) == 24
    with pytest.raises(InputError, match=r"lineardynamics_2 has its trials split by .*seed': 1"):
        Ensemble(runs[1:])
    # where the file gives the split, the settings say nothing
    other = fit(tiny_data(split_seed=1), models[0], QUIET(), in_memory=True)
    assert Ensemble(["plds", other]).model().names == ("plds", "lineardynamics")


# --- weights --------------------------------------------------------------------------------------


def test_best_weights_are_the_best_of_all():
    generator = np.random.default_rng(0)
    values, counts = generator.gamma(2.0, 1.0, (400, 3)), generator.poisson(2.0, 400).astype(float)
    cost = values.sum(axis=0)
    found = best_weights(values, counts, cost)
    grid = np.array([(a, b, 1 - a - b) for a in np.linspace(0, 1, 101)
                     for b in np.linspace(0, 1 - a, 101)])  # fmt: skip
    grid = np.abs(grid)

    def score(weights: np.ndarray) -> float:
        return float(counts @ np.log(values @ weights) - weights @ cost)

    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()
    assert score(found) >= max(map(score, grid)) - 1e-6


def test_best_weights_of_densities_are_the_shares_of_the_mixture():
    generator = np.random.default_rng(1)
    from_first = generator.random(20_000) < 0.7
    draws = np.where(from_first, generator.normal(0, 1, 20_000), generator.normal(4, 1, 20_000))
    values = np.stack([stats.norm.pdf(draws), stats.norm.pdf(draws, 4)], axis=1)
    found = best_weights(values, np.ones(20_000), np.zeros(2))
    assert found == pytest.approx([0.7, 0.3], abs=0.015)


def test_stacking_looks_at_heldin_entries_of_validation_trials_only(whole):
    recording = LORENZ.load()
    other = recording.activity.copy()
    heldout = np.setdiff1d(np.arange(recording.num_neurons), recording.heldin)
    other[..., heldout] += 7
    other[recording.split != "val"] += 3
    found = [
        stacked_weights(whole.model(), in_memory(source), num_samples=3, seed=0)
        for source in (recording, replace(recording, activity=other))
    ]
    assert np.array_equal(*found)
    assert found[0].sum() == pytest.approx(1)


def test_stacking_warns_that_few_trials_are_overfitted():
    with pytest.warns(UserWarning, match="stacked on 8 validation trials, which evaluate scores"):
        run = ensemble(["svae", "plds"], weights="stacking", run_dir="stacked")
    shares = run.config["model"]["init_args"]["weights"]
    assert list(shares) == ["svae", "plds"]
    assert sum(shares.values()) == pytest.approx(1)


def test_a_mixture_of_distributions_has_the_moments_and_densities_of_its_draws():
    log_rate = torch.tensor([0.2, 1.0], dtype=torch.float64)
    parts = [PoissonLogRate(log_rate), NegativeBinomialLogMean(log_rate + 1, log_rate)]
    mixed = Mixed(parts, torch.tensor([0.3, 0.7], dtype=torch.float64))
    counts = torch.arange(2000.0, dtype=torch.float64)[:, None].expand(2000, 2)
    density = mixed.log_prob(counts).exp()
    expected = 0.3 * parts[0].log_prob(counts).exp() + 0.7 * parts[1].log_prob(counts).exp()
    assert density.numpy() == pytest.approx(expected.numpy(), rel=1e-10)
    mean = (density * counts).sum(0)
    assert mixed.mean.numpy() == pytest.approx(mean.numpy(), rel=1e-6)
    variance = (density * (counts - mean).square()).sum(0)
    assert mixed.variance.numpy() == pytest.approx(variance.numpy(), rel=1e-5)
    draws = mixed.sample((20_000,))
    assert draws.mean(0).numpy() == pytest.approx(mean.numpy(), rel=0.05)
    assert draws.var(0).numpy() == pytest.approx(variance.numpy(), rel=0.1)


def test_a_member_without_weight_counts_for_nothing():
    parts = [PoissonLogRate(torch.zeros(2)), PoissonLogRate(torch.ones(2))]
    mixed, counts = Mixed(parts, torch.tensor([0.0, 1.0])), torch.arange(2.0)
    assert torch.equal(mixed.log_prob(counts), parts[1].log_prob(counts))


def test_sample_moments_are_those_of_numpy():
    values = torch.randn(7, 3, 2)
    moments = sample_moments(values)
    assert moments.mean.numpy() == pytest.approx(values.numpy().mean(0), abs=1e-6)
    assert moments.sd.numpy() == pytest.approx(values.numpy().std(0), abs=1e-6)
