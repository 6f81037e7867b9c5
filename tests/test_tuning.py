"""A search of settings: what may vary, what is tried, what is chosen, and that nothing leaks."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import yaml

from seqvae import EM, VAE, InputError, LinearDynamics, NeuralData, SequentialVAE, fit, tune
from seqvae.compute.workers import Workers
from seqvae.config import to_config
from seqvae.console import main as cli
from seqvae.data.masking import CoordinatedDropout
from seqvae.encoders import MLP, DeltaHead
from seqvae.errors import Terminated
from seqvae.learning.validation import validation_scores
from seqvae.tuning import (
    Choice,
    Interval,
    Record,
    Study,
    Task,
    as_space,
    default_space,
    proposals,
    rounds,
)
from seqvae.tuning.proposals import importances
from seqvae.verbs import searched_fit
from seqvae.verbs import tune as verb
from tiny import LORENZ, in_memory, tiny_data, tiny_learner

SMALL = partial(VAE, latent_dim=2)
SPACE = {
    "model.dropout": {"low": 0.0, "high": 0.5},
    "model.optimizer.lr": {"low": "1e-4", "high": 0.1, "log": True},
    "model.latent_dim": [1, 2],
}


def search(folder, num_fits, data=None, **settings):
    return tune(
        tiny_data() if data is None else data, SMALL, tiny_learner(1), space=SPACE,
        num_fits=num_fits, out_dir=str(folder), progress=False, **settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return search(tmp_path_factory.mktemp("tune") / "study", 5)


# --- the space ----------------------------------------------------------------------------------


def test_a_space_is_read_as_yaml_spells_it():
    space = as_space({**SPACE, "model.decoder_dims": [[64], [64, 64]]})
    assert space["model.optimizer.lr"] == Interval(1e-4, 0.1, log=True)
    assert space["model.decoder_dims"] == Choice([[64], [64, 64]])
    assert as_space({"model.latent_dim": {"low": 1, "high": 8}})["model.latent_dim"].is_whole
    fraction = Interval(0, 1).like(0.1)
    assert not fraction.is_whole
    assert fraction.holds(0.5)


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ({"dropout": [0, 1]}, "space.dropout is no setting: begin with model., learner. or data."),
        ({"data.val_fraction": [0.1, 0.2]}, "only batch_size and coordinated_dropout"),
        ({"model.dropout": {"low": 0.5, "high": 0.5}}, "low must be below high, got 0.5 and 0.5"),
        ({"model.dropout": {"low": 0, "high": 1, "log": True}}, "low must be positive"),
        ({"model.dropout": {"low": "little", "high": 1}}, "low must be a number, got 'little'"),
        ({"model.dropout": {"low": 0.1}}, "needs low and high"),
        ({"model.dropout": {"lo": 0.1, "high": 1}}, "dropout.lo is unknown; did you mean 'low'"),
        ({"model.dropout": [0.1]}, "needs two choices or more"),
        ({"model.dropout": 0.1}, "must be {low: ..., high: ...} or a list of choices, got 0.1"),
    ],
)
def test_what_is_no_space_is_refused_in_a_sentence(space, sentence):
    with pytest.raises(InputError) as told:
        as_space(space)
    assert sentence in str(told.value)


def test_models_are_searched_by_what_they_have():
    def names(model, learner, **settings):
        config = {"data": tiny_data(**settings), "model": model, "learner": learner}
        return list(default_space(fit, to_config(config), num_heldin=4))

    usual = ["model.dropout", "model.optimizer.lr", "model.optimizer.weight_decay"]
    assert names(SMALL, tiny_learner()) == usual
    rate = CoordinatedDropout(rate=0.3)
    sequential = names(SequentialVAE, tiny_learner(), coordinated_dropout=rate)
    assert sequential == [*usual, "data.coordinated_dropout.rate"]
    assert names(LinearDynamics, EM()) == ["model.latent_dim"]


# --- what is tried ------------------------------------------------------------------------------


def test_proposals_lie_in_the_space_and_follow_from_their_arguments():
    space = as_space({**SPACE, "model.decoder_dims": [[64], [64, 64]]})
    tried = []
    for number in range(1, 14):
        (settings,) = proposals(space, tried, number=number)
        assert proposals(space, tried, number=number) == [settings]
        assert all(space[name].holds(value) for name, value in settings.items())
        tried.append((settings, None if number == 3 else -settings["model.dropout"]))
    assert proposals(space, tried, number=14) != proposals(space, tried, number=15)
    assert proposals(space, tried, number=14) != proposals(space, tried, number=14, seed=1)
    assert len(proposals(space, tried, number=14, count=2, seed=2**62)) == 2
    together = proposals(space, tried, number=14, count=3)
    assert len({str(settings) for settings in together}) == 3


def test_the_estimator_comes_nearer_to_a_maximum_than_random_search():
    """Of 30 random draws the nearest lies on average as far as 1000 sets of them tell."""
    space = as_space({f"model.{name}": {"low": 0.0, "high": 1.0} for name in "abc"})
    draws = np.random.default_rng(0).random((1000, 30, 3))
    nearest = ((draws - 0.3) ** 2).sum(axis=2).min(axis=1)

    def best(seed):
        tried = []
        for number in range(30):
            (settings,) = proposals(space, tried, number=number, seed=seed)
            tried.append((settings, -sum((value - 0.3) ** 2 for value in settings.values())))
        return -max(score for _, score in tried)

    assert np.mean([best(seed) for seed in range(3)]) < 0.6 * nearest.mean()


def test_the_setting_that_matters_has_the_share():
    space = as_space({"model.a": {"low": 0.0, "high": 1.0}, "model.b": {"low": 0.0, "high": 1.0}})
    tried = []
    for number in range(30):
        (settings,) = proposals(space, tried, number=number, search="random")
        tried.append((settings, settings["model.a"]))
    shares = importances(space, tried)
    assert shares["model.a"] > 0.95
    assert sum(shares.values()) == pytest.approx(1)
    assert importances(space, tried[:3]) == {}


# --- the study ----------------------------------------------------------------------------------


def test_a_study_keeps_every_fit_and_a_config_of_the_best(study):
    table = study.table
    assert list(table["number"]) == [0, 1, 2, 3, 4]
    assert study.best.score == table["score"].max()
    assert table.loc[0, "model.dropout"] == 0.1  # as the class has it
    for number in range(5):
        scores = validation_scores(study.run(number).model(), tiny_data())
        assert scores["val/heldin_elbo"] == pytest.approx(study.records[number].score, rel=1e-6)
    config = yaml.safe_load((study.folder / "best.yaml").read_text())
    assert (
        config["model"]["init_args"]["dropout"]
        == study.settings_of(study.best.number)["model.dropout"]
    )
    summary = json.loads((study.folder / "summary.json").read_text())
    assert summary["best"] == study.best.number
    assert summary["gain"] == study.gain >= 0
    assert (study.folder / "search.png").stat().st_size > 10_000


def test_the_best_config_makes_the_best_fit_again(study, tmp_path, capsys):
    flags = ["--config", str(study.folder / "best.yaml"), "--run_dir", str(tmp_path / "run")]
    assert cli.main(["fit", *flags]) == 0
    capsys.readouterr()
    rows = (tmp_path / "run/history.csv").read_text()
    assert rows == (study.place(study.best.number) / "history.csv").read_text()


def test_an_ended_search_goes_on_to_the_same(study, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(study.folder, folder)
    for number in (3, 4):
        (folder / f"fits/{number:04d}.json").unlink()
    (folder / "fits/0004/weights.pt").unlink()  # of a fit that was ended
    again = search(folder, 5)
    columns = [name for name in study.table if name != "seconds"]
    assert again.table[columns].equals(study.table[columns])


def test_up_to_four_workers_change_nothing_that_is_tried(study, tmp_path, monkeypatch):
    asked = []

    def answers(workers, one, tasks, *, bar):
        asked.append((workers.number, [task.number for task in tasks]))
        yield from map(one, tasks)

    monkeypatch.setattr(Workers, "answers", answers)
    again = search(tmp_path / "study", 5, jobs=3)
    assert asked == [(3, [0]), (3, [1, 2, 3, 4])]
    for number, record in study.records.items():
        assert replace(again.records[number], seconds=record.seconds) == record


def test_a_round_that_was_ended_goes_on_to_the_same(tmp_path):
    space = as_space(SPACE)
    facts = {"former": {"model.dropout": 0.1}, "search": "tpe", "seed": 0, "checksum": ""}

    def run(study, order):
        for tasks in rounds(study, space, num_fits=8, count=3):
            for task in sorted(tasks, key=order):
                study.add(Record(task.number, task.settings, float(task.number), "elbo", 1.0))

    whole, ended = (Study.opened(tmp_path / name, facts) for name in ("whole", "ended"))
    run(whole, lambda task: task.number)
    with pytest.raises(StopIteration):
        run(ended, lambda task: -task.number if task.number != 5 else next(iter(())))
    run(ended, lambda task: -task.number)
    assert whole.records == ended.records


def test_what_is_held_out_chooses_nothing(study, tmp_path):
    recording = LORENZ.load()
    activity = recording.activity.copy()
    heldout = np.setdiff1d(np.arange(recording.num_neurons), recording.heldin)
    activity[np.ix_(recording.split == "val", np.ones(recording.num_time_bins, bool), heldout)] = 9
    other = search(tmp_path / "study", 5, in_memory(replace(recording, activity=activity)))
    columns = [name for name in study.table if name != "seconds"]
    assert other.table[columns].equals(study.table[columns])


def test_test_trials_change_no_fit(tmp_path):
    recording = LORENZ.load()
    split = np.where(np.arange(recording.num_trials) % 4 == 0, "test", recording.split)
    activity = recording.activity.copy()
    activity[split == "test"] = 9
    one, other = (
        search(tmp_path / name, 3, in_memory(replace(recording, activity=values, split=split)))
        for name, values in (("a", recording.activity), ("b", activity))
    )
    columns = [name for name in one.table if name != "seconds"]
    assert other.table[columns].equals(one.table[columns])


def test_a_terminated_search_ends_and_notes_no_failure(tmp_path, monkeypatch):
    def ended(*_, **__):
        raise Terminated("terminated")

    monkeypatch.setattr(searched_fit, "validated", ended)
    config = to_config({"seed": 0, "data": tiny_data(), "model": SMALL, "learner": tiny_learner()})
    with pytest.raises(Terminated):
        searched_fit.fit_of_task(
            tiny_data(), [config], lambda number: tmp_path / str(number), Task(1, {})
        )


@pytest.mark.parametrize("select", ["val/elbo", "val/co_bps", "val/heldin_elbo"])
def test_weights_are_picked_as_fits_are_scored(select):
    chosen = searched_fit._by_heldin(tiny_learner(2, select=select, refit=True))
    assert chosen.select == "val/heldin_elbo"
    assert not chosen.refit


def test_a_likelihood_that_knows_what_is_held_out_chooses_nothing(tmp_path):
    model = partial(VAE, latent_dim=2, encoder=partial(MLP, head=DeltaHead))
    learner = tiny_learner(1, select="val/log_likelihood")
    with pytest.raises(InputError, match=r"cannot be fitted: .* the log-likelihood knows what is"):
        tune(tiny_data(), model, learner, out_dir=str(tmp_path / "study"), progress=False)
    assert not list((tmp_path / "study").rglob("*.csv"))
    assert [path.name for path in (tmp_path / "study/fits").iterdir()] == ["0000.json"]
    whole = tune(
        tiny_data(heldout=[]), model, learner, num_fits=2, out_dir=str(tmp_path / "whole"),
        progress=False,
    )  # fmt: skip
    assert whole.best.measure == "log_likelihood"


def test_fits_that_fail_are_told_and_the_search_goes_on(tmp_path):
    space = {"model.latent_dim": [2, 3], "model.dropout": [0.0, 0.2]}
    found = tune(tiny_data(), LinearDynamics, EM(max_iterations=1, progress=False),
                 space={"model.latent_dim": [1, 2, -1]}, num_fits=6, search="random",
                 out_dir=str(tmp_path / "study"), progress=False)  # fmt: skip
    failed = found.table[found.table["error"].notna()]
    assert set(failed["model.latent_dim"]) == {-1}
    assert "failed" in verb.shown(found, {})
    with pytest.raises(InputError, match=r"space: model\.dropout"):
        tune(tiny_data(), LinearDynamics, space=space, out_dir=str(tmp_path / "b"))
    assert not (tmp_path / "b").exists()


def test_what_cannot_be_searched_is_refused_before_any_fit(study, tmp_path, monkeypatch):
    folder = str(tmp_path / "study")
    for changes, sentence in [
        ({"space": {"model.dropuot": [0, 1]}}, "space: model.dropuot does not exist"),
        ({"space": {"model.dropout": ["much", "more"]}}, "space: model.dropout must be"),
        ({"num_fits": 1}, "num_fits must be at least 2, got 1"),
        ({"jobs": 0}, "jobs must be at least 1"),
    ]:
        with pytest.raises(InputError) as told:
            tune(tiny_data(), SMALL, tiny_learner(1), out_dir=folder, **changes)
        assert str(told.value).startswith(sentence)
    with pytest.raises(InputError, match="tune needs validation trials"):
        tune(NeuralData(np.ones((9, 5, 4)), bin_width=0.1, val_fraction=0.0), SMALL, out_dir=folder)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="tune needs optuna; pip install"):
        search(folder, 3)
    assert not (tmp_path / "study").exists()


def test_a_folder_is_gone_on_with_by_its_own_search_only(study, tmp_path):
    before = sorted(path.name for path in study.folder.rglob("*"))
    with pytest.raises(InputError, match="seed was 0 and is now 1; cannot go on with the study"):
        search(study.folder, 6, seed=1)
    with pytest.raises(InputError, match=r"config\.data\.batch_size was 8 and is now 4"):
        search(study.folder, 6, tiny_data(batch_size=4))
    with pytest.raises(InputError, match="holds a study of other data; give a new folder"):
        search(study.folder, 6, tiny_data(replace(LORENZ, seed=1)))
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and no study; give a new folder"):
        search(tmp_path, 6)
    assert sorted(path.name for path in study.folder.rglob("*")) == before


def test_the_command_searches_and_tells_what_to_do_next(tmp_path, capsys):
    flags = {
        "data.source": "Lorenz", "data.source.num_trials": 24, "data.source.num_val": 8,
        "data.source.num_time_bins": 10, "data.source.num_neurons": 6, "data.source.num_heldout": 2,
        "model": "LinearDynamics", "learner.max_iterations": 1, "num_fits": 3,
        "space": "{model.latent_dim: {low: 1, high: 3}}", "progress": "false",
        "out_dir": tmp_path / "study",
    }  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    assert cli.main(["tune", *words]) == 0
    told = capsys.readouterr().out
    assert "best 3 of 3 fits, by heldin_elbo on the validation trials" in told
    assert f"study: {tmp_path / 'study'}" in told
