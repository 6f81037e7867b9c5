"""Several sessions are one recording in which each trial lacks the others' neurons."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

import seqvae
from seqvae.compute import noise
from seqvae.config import from_config, to_config
from seqvae.crossvalidation.division import Division
from seqvae.data import NeuralData, Recording
from seqvae.data.session_alignment import aligned
from seqvae.data.sources import Lorenz, Sessions, as_source, write_npz
from seqvae.encoders import InformationMLP, LinearReadIn
from seqvae.errors import InputError
from seqvae.learning import EM
from seqvae.models import FLDS, VAE, LinearDynamics, NonlinearDynamics
from seqvae.observations import Gaussian
from seqvae.state_space import LinearStateSpace, maximize
from seqvae.types import Batch
from tiny import SVAE, first_inequality, tiny_learner

NEURONS = {"a": 4, "b": 3, "c": 5}


def recording(seed: int, neurons: int = 4, trials: int = 12, bins: int = 9, **beside: Any):
    counts = np.random.default_rng(seed).poisson(1.5, (trials, bins, neurons))
    return Recording(counts, 0.02, **beside)


def three(**beside: Any) -> dict[str, Recording]:
    return {
        name: recording(seed, number, **beside)
        for seed, (name, number) in enumerate(NEURONS.items())
    }


def sessions(recordings: dict[str, Recording]) -> Sessions:
    return Sessions([*recordings.values()], names=[*recordings])


def data_of(recordings: dict[str, Recording], **settings: Any) -> NeuralData:
    return NeuralData(sessions(recordings), **settings)


def test_each_trial_holds_its_own_session_and_misses_the_others() -> None:
    inputs = np.random.default_rng(0).normal(size=(12, 9, 2)).astype(np.float32)
    parts = three(behavior=np.ones((12, 9, 2)), condition=np.arange(12) % 3, inputs=inputs)
    whole = sessions(parts).load()
    assert whole.shape == (36, 9, 12)
    neuron = 0
    for place, (name, part) in enumerate(parts.items()):
        trials, own = np.arange(12) + 12 * place, np.arange(part.num_neurons) + neuron
        activity = whole.read(trials)
        assert np.array_equal(activity[..., own], part.read())
        assert np.isnan(np.delete(activity, own, axis=2)).all()
        assert set(whole.trial_sessions[trials]) == {name}
        assert set(whole.neuron_sessions[own]) == {name}
        neuron += part.num_neurons
    assert np.array_equal(whole.condition, np.tile(np.arange(12) % 3, 3))
    assert np.array_equal(whole.behavior, np.ones((36, 9, 2)))
    assert np.array_equal(whole.inputs, np.tile(inputs, (3, 1, 1)))
    assert whole.neuron_ids[4] == "b/0"


def test_a_session_alone_is_the_recording_itself() -> None:
    alone = recording(0)
    assert Sessions([alone]).load() is alone


def test_trials_of_unequal_length_keep_theirs() -> None:
    whole = sessions({"a": recording(0, bins=9), "b": recording(1, bins=6)}).load()
    assert whole.lengths.tolist() == [9] * 12 + [6] * 12


def test_every_session_is_split_and_held_out_as_if_it_were_alone() -> None:
    parts = three(condition=np.arange(12) % 3)
    settings = {"val_fraction": 0.25, "test_fraction": 0.25, "heldout": 0.3}
    joint = data_of(parts, **settings)
    alone = [NeuralData(part, **settings) for part in parts.values()]
    assert np.array_equal(joint.split, np.concatenate([one.split for one in alone]))
    starts = np.cumsum([0, *NEURONS.values()])
    heldin = [start + n for start, one in zip(starts, alone, strict=False) for n in one.spec.heldin]
    assert list(joint.spec.heldin) == heldin


def test_every_trial_is_in_one_batch_of_an_epoch() -> None:
    data = data_of(three(), batch_size=7, seed=3)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    trials = np.concatenate([batch.trial.numpy() for batch in loader])
    assert sorted(trials.tolist()) == data.trials("train").tolist()


def test_held_in_neurons_of_files_are_joined() -> None:
    whole = sessions({"a": recording(0, heldin=[0, 2]), "b": recording(1, neurons=3)}).load()
    assert whole.heldin.tolist() == [0, 2, 4, 5, 6]


def test_a_pattern_of_paths_names_the_files_that_are_there(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_npz(recording(ord(name)), tmp_path / f"{name}.npz")
    source = as_source(str(tmp_path / "*.npz"))
    assert source.sources == [str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]
    data = NeuralData(source)
    assert data.sessions == ("a", "b")
    again = from_config(to_config(data), NeuralData)
    assert again.recording.checksum == data.recording.checksum


def test_the_sessions_of_arrays_stand_in_no_config() -> None:
    assert to_config(sessions(three())) is None


def test_of_a_session_no_other_trial_is_in_any_split() -> None:
    data = data_of(three())
    part = data.of_session("b")
    assert set(part.trials("all")) == set(range(12, 24))
    assert set(part.trials("val")) == set(data.trials("val")) & set(range(12, 24))
    with pytest.raises(InputError, match="session 'd' is unknown"):
        data.of_session("d")
    with pytest.raises(InputError, match="of one session, leave it out"):
        NeuralData(recording(0)).of_session("a")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"bin_width": 0.01}, "session 'b' has bins of 0.01 s, and session 'a' of 0.02 s"),
        ({"inputs": np.zeros((12, 9, 1))}, "inputs: session 'b' has 1, and session 'a' 0"),
        ({"split": ["train", "val"] * 6}, "session 'a' does not say which trials validate"),
        ({"num_encoded_bins": 7}, "forecast bins: session 'b' has others"),
    ],
    ids=["width", "inputs", "split", "forecast"],
)
def test_a_session_that_does_not_go_with_the_first_is_refused(changes, sentence: str) -> None:
    counts = np.random.default_rng(1).poisson(1.5, (12, 9, 3))
    other = Recording(counts, **{"bin_width": 0.02, **changes})
    with pytest.raises(InputError, match=sentence):
        sessions({"a": recording(0), "b": other}).load()


def test_a_session_without_spikes_is_refused(tmp_path: Path) -> None:
    write_npz(recording(0), tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", activity=np.zeros((3, 4, 5)), bin_width=0.02)
    with pytest.raises(InputError, match=r"sources\[1\] .*b.npz.*: .* is silent"):
        Sessions(str(tmp_path / "*.npz")).load()


def test_behaviour_of_other_dimensions_is_refused() -> None:
    parts = {name: recording(size, behavior=np.ones((12, 9, size)))
             for name, size in (("a", 2), ("b", 3))}  # fmt: skip
    with pytest.raises(InputError, match="session 'b' has 3 dimensions, and session 'a' 2"):
        sessions(parts).load()


def test_several_sessions_are_no_session_of_others() -> None:
    two = sessions({"a": recording(0), "b": recording(1)}).load()
    with pytest.raises(InputError, match=r"session 'd' is several \('a', 'b'\); give each of them"):
        sessions({"c": recording(2), "d": two}).load()


def test_a_session_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sessions 'a' and 'b' hold the same activity"):
        sessions({"a": recording(0), "b": recording(0)}).load()
    with pytest.raises(InputError, match="twice"):
        Sessions([str(tmp_path / "a.npz"), str(tmp_path / "." / "a.npz")])
    with pytest.raises(InputError, match="names must name each of the 2 sessions otherwise"):
        Sessions([recording(0), recording(1)], names=["a", "a"]).load()


def test_a_file_that_has_gone_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_npz(recording(ord(name)), tmp_path / f"{name}.npz")
    source = Sessions(str(tmp_path / "*.npz"))
    (tmp_path / "b.npz").unlink()
    with pytest.raises(InputError, match=r"sources\[1\] .*b.npz' does not exist"):
        source.load()
    with pytest.raises(InputError, match="no file is named like"):
        Sessions(str(tmp_path / "*.h5"))


def test_behaviour_that_one_session_lacks_is_missing_there() -> None:
    parts = {"a": recording(0, behavior=np.ones((12, 9, 2))), "b": recording(1)}
    with pytest.warns(match="behavior: session 'b' has none"):
        whole = sessions(parts).load()
    assert np.isnan(whole.behavior[12:]).all()


def test_conditions_that_one_session_lacks_are_left_out() -> None:
    parts = {"a": recording(0, condition=np.arange(12) % 2), "b": recording(1)}
    with pytest.warns(match="condition: session 'b' has none"):
        assert sessions(parts).load().condition is None


def test_a_run_answers_by_session(tmp_path: Path) -> None:
    for name, part in three().items():
        write_npz(part, tmp_path / f"{name}.npz")
    data = NeuralData(str(tmp_path / "*.npz"), heldout=0.3)
    model = partial(LinearDynamics, latent_dim=2)
    folder = str(tmp_path / "run")
    seqvae.fit(data, model, EM(max_iterations=2, progress=False), run_dir=folder)
    joint = seqvae.infer(folder, num_samples=2)
    assert set(joint.trial_session.values) == set(NEURONS)
    for name, number in NEURONS.items():
        own = seqvae.infer(folder, session=name, num_samples=2)
        assert own.sizes["trial"] == 12
        assert own.sizes["neuron"] == number
        there = joint.rates.sel(trial=own.trial, neuron=own.neuron)
        np.testing.assert_allclose(there.values, own.rates.values, rtol=1e-5)
        assert not np.isnan(own.activity.values).any()
    scores = seqvae.evaluate(folder, num_samples=2)
    of_all = [one["log_likelihood"] for one in scores["sessions"].values()]
    weights = list(NEURONS.values())  # each has as many trials and bins
    assert scores["log_likelihood"] == pytest.approx(np.average(of_all, weights=weights))
    own = seqvae.evaluate(folder, session="b", num_samples=2)
    assert own["co_bps"] == pytest.approx(scores["sessions"]["b"]["co_bps"])
    assert own["num_trials"] == scores["sessions"]["b"]["num_trials"]
    assert "smoothing_glm" in own["baselines"]
    for verb in (seqvae.infer, seqvae.evaluate):
        with pytest.raises(InputError, match="session 'd' is unknown"):
            verb(folder, session="d")


def simulated(seed: int, neurons: int = 10, **settings: Any) -> Recording:
    return Lorenz(
        num_trials=16,
        num_val=4,
        num_time_bins=25,
        num_neurons=neurons,
        num_heldout=2,
        mean_count=1.0,
        seed=seed,
        num_conditions=4,
        **settings,
    ).load()


def lorenz(**settings: Any) -> NeuralData:
    return data_of({"a": simulated(0), "b": simulated(1, 7), "c": simulated(2)}, **settings)


def test_simulations_of_any_seed_share_their_conditions() -> None:
    one, other = simulated(0), simulated(1)
    assert np.array_equal(one.behavior, other.behavior)
    assert np.array_equal(one.condition, np.arange(16) % 4)
    assert np.array_equal(one.behavior[0], one.behavior[4])
    assert not np.array_equal(one.rates, other.rates)
    with pytest.raises(InputError, match="num_conditions must be from 1 to num_trials 5, got 6"):
        Lorenz(num_trials=5, num_val=1, num_conditions=6)


def test_what_one_session_tells_of_the_path_is_what_another_tells() -> None:
    data = lorenz()
    common = aligned(data, 3)
    session = data.recording.trial_sessions[common.trials]
    path = [common.path[session == name].reshape(-1, 3) for name in "abc"]
    truth = data.recording.behavior[common.trials[session == "a"]].reshape(-1, 3)
    weights = np.linalg.lstsq(path[0], truth, rcond=None)[0]
    for other in path:  # the trajectories are the same, the neurons are not
        residual = truth - other @ weights
        assert 1 - residual.var() / truth.var() > 0.5
    assert not common.read_in[data.recording.num_neurons - len(data.spec.heldout) :].all()
    assert np.allclose(common.read_in[list(data.spec.heldout)], 0)


def test_the_read_in_is_a_regression_on_the_components_of_matched_averages() -> None:
    data = lorenz(alignment="trials")
    common = aligned(data, 2)
    # time-matched means of all trials, by hand
    recording, trials = data.recording, data.trials("train")
    mean, std = (part.double().numpy() for part in data.train_moments[:2])
    steps = np.arange(25)
    kernel = np.exp(-0.5 * ((steps[:, None] - steps) / 4.0) ** 2)
    columns = []
    for name in "abc":
        own = recording.neuron_sessions == name
        some = recording.read(trials[recording.trial_sessions[trials] == name])[..., own]
        scaled = (some - mean[own]) / std[own]
        columns.append((kernel @ scaled / (kernel.sum(1, keepdims=True) + 1)).mean(0))
    matched = np.concatenate(columns, axis=1)
    matched = matched - matched.mean(0)
    left, size, _ = np.linalg.svd(matched, full_matrices=False)
    x = matched[:, (recording.neuron_sessions == "b") & np.isin(np.arange(27), data.spec.heldin)]
    weights = np.linalg.solve(x.T @ x + 2.5 * np.eye(x.shape[1]), x.T @ (left * size)[:, :2])
    own = np.flatnonzero(recording.neuron_sessions == "b")
    own = own[np.isin(own, data.spec.heldin)]
    ratio = common.read_in[own] * std[own][:, None] / weights
    assert np.allclose(ratio, ratio[0])  # up to the unit of each component


def test_sessions_without_a_common_condition_are_refused_with_the_cure() -> None:
    parts = {"a": simulated(0), "b": simulated(1)}
    parts["b"] = replace(parts["b"], condition=parts["b"].condition + 10)
    with pytest.raises(InputError, match=r"session 'b' has no condition in common.*trials"):
        aligned(data_of(parts), 2)
    assert aligned(data_of(parts, alignment="trials"), 2) is not None
    with pytest.raises(InputError, match="alignment must be 'conditions' or 'trials'"):
        data_of(parts, alignment="trial")


def test_one_session_is_fitted_as_its_recording_bit_for_bit() -> None:
    part = simulated(0)
    learner = EM(max_iterations=3, progress=False)
    models = [
        seqvae.fit(NeuralData(one), partial(LinearDynamics, latent_dim=2), learner, in_memory=True)
        for one in (part, Sessions([part]))
    ]
    one, other = (run.model().state_dict() for run in models)
    assert first_inequality(dict(one), dict(other)) is None


def joint(data: NeuralData, **settings: Any) -> LinearDynamics:
    model = LinearDynamics(data.spec, latent_dim=2, **settings)
    model.initialize(data)
    EM(max_iterations=4, progress=False).learn(model, data)
    return model


def test_the_order_of_sessions_changes_nothing_but_the_order() -> None:
    names = ["a", "b", "c"]
    parts = {"a": simulated(0), "b": simulated(1, 7), "c": simulated(2)}
    one = data_of(parts)
    other = data_of({name: parts[name] for name in reversed(names)})
    first, second = joint(one), joint(other)
    ids = [np.asarray(data.recording.neuron_ids) for data in (one, other)]
    order = [int(np.flatnonzero(ids[1] == name)[0]) for name in ids[0]]
    assert torch.allclose(first.transition, second.transition, atol=1e-6)
    loadings = second.observation.readout.weight[order]
    assert torch.allclose(first.observation.readout.weight, loadings, atol=1e-6)


def test_the_evidence_of_a_gaussian_model_is_that_of_each_session_alone() -> None:
    """A joint model's log p(x) is the dense Gaussian one of each trial's own neurons."""
    generator = np.random.default_rng(0)
    parts = {name: Recording(generator.normal(size=(5, 6, size)), 0.02)
             for name, size in (("a", 3), ("b", 4))}  # fmt: skip
    data = data_of(parts, alignment="trials")
    model = joint(data, observation=Gaussian)
    evidence = model.evidence(data.batch(np.arange(10)))["log_evidence"]
    dynamics, emission = model.state_space
    means, blocks = [dynamics.initial_mean], [dynamics.initial_covariance]
    for _ in range(5):
        means.append(dynamics.transition @ means[-1] + dynamics.offset)
        blocks.append(dynamics.transition @ blocks[-1] @ dynamics.transition.mT
                      + dynamics.noise_covariance)  # fmt: skip
    rows = [
        torch.cat(
            [
                torch.linalg.matrix_power(dynamics.transition, max(t - s, 0))
                @ blocks[min(s, t)]
                @ torch.linalg.matrix_power(dynamics.transition, max(s - t, 0)).mT
                for s in range(6)
            ],
            dim=1,
        )
        for t in range(6)
    ]
    mean, covariance = torch.cat(means), torch.cat(rows)
    for trial, name in enumerate(data.recording.trial_sessions):
        own = torch.from_numpy(data.recording.neuron_sessions == str(name))
        loadings = torch.block_diag(*[emission.loadings[own]] * 6)
        noise = emission.std[own].square().repeat(6).diag()
        x = torch.from_numpy(data.recording.read([trial])[0][:, own.numpy()]).double().reshape(-1)
        law = MultivariateNormal(
            loadings @ mean + emission.bias[own].repeat(6),
            loadings @ covariance @ loadings.mT + noise,
        )
        assert evidence[trial].item() == pytest.approx(law.log_prob(x).item(), rel=1e-9)


def test_each_sessions_m_step_is_its_own_and_the_dynamics_add() -> None:
    """The loadings of a session are those of an M-step on its trials alone."""
    data = lorenz()
    model = LinearDynamics(data.spec, latent_dim=2)
    model.initialize(data)
    batch = model.scored(data.batch(data.trials("train"))).to(model.offset)
    start, e_step = model.state_space, model.e_step()

    def learned(batch: Batch, neurons: list[int]) -> LinearStateSpace:
        target, weight = batch.target[..., neurons], batch.weight[..., neurons]
        emission, prior = start.emission.select(neurons), start.dynamics.chain(batch.inputs)
        posterior = e_step(prior, emission, target=target, weight=weight)
        own = replace(batch, target=target, weight=weight)
        return maximize(LinearStateSpace(start.dynamics, emission), posterior, batch=own, ridge=1.0)

    whole = learned(batch, list(range(27)))
    sessions_of = data.recording.trial_sessions[data.trials("train")]
    for name in "abc":
        own = np.flatnonzero(data.recording.neuron_sessions == name).tolist()
        alone = learned(batch[torch.from_numpy(np.flatnonzero(sessions_of == name))], own)
        assert torch.allclose(alone.emission.loadings, whole.emission.loadings[own])
        assert not torch.allclose(alone.dynamics.transition, whole.dynamics.transition)


@pytest.mark.parametrize(
    "model",
    [
        partial(SVAE, read_in=partial(LinearReadIn, output_dim=3)),
        partial(VAE, latent_dim=2, factor_dim=3, read_in=partial(LinearReadIn, output_dim=3)),
        partial(FLDS, latent_dim=2, decoder_dims=(3,),
                encoder=partial(InformationMLP, hidden_dims=(4,),
                                read_in=partial(LinearReadIn, output_dim=3))),
        partial(NonlinearDynamics, latent_dim=2, dynamics_dims=(3,), decoder_dims=(3,)),
    ],
    ids=["svae", "vae", "flds", "nlds"],
)  # fmt: skip
def test_a_model_of_several_sessions_is_learned_and_knows_no_heldout_neuron(model) -> None:
    data = lorenz(batch_size=16)
    run = seqvae.fit(data, model, tiny_learner(1), in_memory=True)
    fitted = run.model()
    trials = data.trials("val")
    batch = data.batch(trials)
    changed = batch.target.clone()
    changed[..., list(data.spec.heldout)] += 3
    with torch.no_grad():
        answers = []
        for target in (batch.target, changed):
            with noise.keyed(0):
                answers.append(fitted(replace(batch, target=target), 2).factors)
    assert torch.equal(*answers)
    assert np.isfinite(seqvae.evaluate(run, num_samples=2)["sessions"]["b"]["co_bps"])


@pytest.mark.filterwarnings("ignore:.*largest of the grid")  # of two that are tried
def test_each_session_is_spread_over_the_folds_of_a_cross_validation(tmp_path: Path) -> None:
    data = lorenz()
    result = seqvae.crossvalidate(
        data,
        {"plds": LinearDynamics},
        dims=[1],
        learners={"plds": EM(max_iterations=2, progress=False)},
        trial_folds=2,
        neuron_folds=2,
        out_dir=str(tmp_path / "cv"),
    )
    assert set(result.scores.status) == {"done"}
    division = Division.of(data.pool(), scheme="fold_in", rows="auto", trial_folds=2,
                           neuron_folds=2, gap=None, seed=0)  # fmt: skip
    for name, size in zip("abc", (10, 7, 10), strict=True):
        trials = division.trial_fold[data.recording.trial_sessions == name]
        assert np.bincount(trials).tolist() == [8, 8]
        neurons = division.neuron_fold[data.recording.neuron_sessions == name]
        assert sorted(np.bincount(neurons).tolist()) == [size // 2, (size + 1) // 2]


def test_a_read_in_begins_where_sessions_are_aligned() -> None:
    data = lorenz()
    model = SVAE(data.spec, read_in=partial(LinearReadIn, output_dim=3))
    model.initialize(data)
    common = aligned(data, 3)
    batch = data.batch(data.trials("train")[:2])
    mean = data.train_mean.double().numpy()
    x = np.nan_to_num(data.recording.read(data.trials("train")[:2]) - mean)
    expected = x @ common.read_in
    read = model.read_in(model.standardized(batch)).detach().numpy()
    assert np.allclose(read, expected, atol=1e-4)
    # and the first factors are what its readout reads
    linear = LinearDynamics(data.spec, latent_dim=3)
    linear.initialize(data)
    weight = model.observation.readout.weight.double()
    assert torch.allclose(weight, linear.observation.readout.weight, atol=1e-5)
    with pytest.raises(InputError, match="output_dim of a LinearReadIn must be at least 1"):
        LinearReadIn(3, output_dim=0)
