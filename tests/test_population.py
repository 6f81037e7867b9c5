"""A population of fits: who lends what to whom, within which bounds, and that it goes on."""

from __future__ import annotations

import math
import shutil
from functools import partial

import numpy as np
import pytest
import yaml
from scipy import stats

from seqvae import EM, FLDS, VAE, InputError, LinearDynamics, fit, tune
from seqvae.config import to_config
from seqvae.objectives import Objective
from seqvae.plotting import lineage
from seqvae.tuning import Choice, Interval, Record, Study, default_space, evolution
from seqvae.tuning.population import WARMED_UP, changed, epochs_of, ramps_of
from seqvae.verbs import tune as verb
from seqvae.verbs.generation_stages import changes_shapes
from tiny import tiny_data, tiny_learner

SPACE = {
    "model.dropout": Interval(0.0, 0.5),
    "model.optimizer.lr": Interval(1e-4, 0.1, log=True),
    "learner.patience": Interval(1, 9),
    "model.activation": Choice(["ReLU", "Tanh", "ELU"]),
}
FORMER = {"model.dropout": 0.1, "model.optimizer.lr": 0.01, "learner.patience": 3,
          "model.activation": "ReLU"}  # fmt: skip
SMALL = partial(VAE, latent_dim=2, objective=Objective(beta_steps=4))


def made(folder, score, *, population=6, generations=5, order=lambda task: task.number, seed=0):
    """A study whose scores are those of a function of a task, made in some order."""
    study = Study.opened(
        folder, {"former": FORMER, "search": "pbt", "seed": seed, "checksum": "", "space": {}}
    )
    for tasks in evolution(study, SPACE, population=population, generations=generations):
        for task in sorted(tasks, key=order):
            record = Record(task.number, task.settings, score(task), "elbo", 1.0, None, task.parent)
            study.add(record)
    return study


def test_the_worse_of_two_takes_over_from_the_better_which_goes_on_as_it_is(tmp_path):
    study = made(tmp_path / "a", lambda task: float(np.sin(7 * task.number)))
    records, taken_over = study.records, 0
    assert len(records) == 30
    for number in range(6, 30):
        own, parent = number - 6, records[number].parent
        assert parent // 6 == number // 6 - 1
        if parent == own:
            assert records[number].settings == study.settings_of(own)
        else:
            taken_over += 1
            assert records[parent].score > records[own].score
            assert records[number].settings != study.settings_of(parent)
        best = max(range(own // 6 * 6, own // 6 * 6 + 6), key=lambda n: records[n].score)
        assert own != best or parent == own
    assert 6 <= taken_over <= 18  # of 24 members one half, but for chance


def test_everyone_meets_everyone_else_alike(tmp_path):
    """The lowest of four takes over from each of the others one time in three."""
    scores = [0.0, 1.0, 2.0, 3.0]
    parents = [
        made(tmp_path / str(seed), lambda task: scores[task.number % 4], population=4,
             generations=2, seed=seed).records[4].parent
        for seed in range(60)
    ]  # fmt: skip
    counts = np.bincount(parents, minlength=4)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 0.001


def test_a_population_climbs_where_a_setting_pays(tmp_path):
    """Scores grow with the rate, so that the rates of the last generation are larger."""

    def score(task):
        return math.log({**FORMER, **task.settings}["model.optimizer.lr"])

    study = made(tmp_path / "a", score, population=8, generations=12)
    rates = [study.settings_of(number)["model.optimizer.lr"] for number in range(96)]
    assert min(rates[-8:]) > np.median(rates[:8])
    assert max(rates[-8:]) > max(rates[:8])
    assert max(rates) <= 0.1


@pytest.mark.parametrize("fails", [(2,), (0, 1, 3, 4, 5)])
def test_what_could_not_be_fitted_lends_nothing(tmp_path, fails):
    study = made(tmp_path / "a", lambda t: None if t.number in fails else 1.0, generations=2)
    assert not {study.records[number].parent for number in range(6, 12)} & set(fails)


def test_an_ended_population_goes_on_to_the_same(tmp_path):
    def score(task):
        return float(np.cos(3 * task.number))

    whole = made(tmp_path / "whole", score)
    other = made(tmp_path / "other", score, order=lambda task: -task.number)
    assert whole.records == other.records
    shutil.copytree(tmp_path / "whole", tmp_path / "ended")
    for number in (8, 11, *range(12, 30)):
        (tmp_path / f"ended/fits/{number:04d}.json").unlink()
    assert made(tmp_path / "ended", score).records == whole.records


def test_changes_are_small_uniform_and_within_bounds():
    generator = np.random.default_rng(0)
    log, flat, whole = Interval(1e-4, 1.0, log=True), Interval(0.0, 0.5), Interval(1, 100)
    factors = [math.log(changed(log, 0.01, generator) / 0.01) for _ in range(400)]
    low, high = math.log(0.8), math.log(1.2)
    assert stats.kstest(factors, "uniform", (low, high - low)).pvalue > 0.001
    steps = [changed(flat, 0.25, generator) - 0.25 for _ in range(400)]
    assert stats.kstest(steps, "uniform", (-0.05, 0.1)).pvalue > 0.001
    assert {type(changed(whole, 50, generator)) for _ in range(20)} == {int}
    for values, edge in ((log, 1.0), (flat, 0.0), (whole, 100)):
        assert all(values.holds(changed(values, edge, generator)) for _ in range(50))
    drawn = [changed(Choice(["a", "b", "c"]), "a", generator) for _ in range(900)]
    assert stats.binomtest(900 - drawn.count("a"), 900, 0.2 * 2 / 3).pvalue > 0.001


def test_generations_hold_whole_validations_and_the_first_one_the_warm_ups():
    sizes = {"epochs": 100, "generations": 8, "every": 5}
    assert epochs_of(0, **sizes, first=0) == 15
    assert epochs_of(0, **sizes, first=31) == 35
    assert epochs_of(3, **sizes, first=31) == 15
    objective = Objective(beta_start=10, beta_steps=20, recurrent_l2_steps=25, kl_target_steps=7)
    assert ramps_of(vars(objective), {}) == 30
    assert ramps_of({**vars(objective), "recurrent_l2": 0.1, "beta_steps": 5}, {}) == 25
    l2 = {"model.objective.recurrent_l2": Interval(0.0, 1.0)}
    assert ramps_of({**vars(objective), "beta_steps": 5}, l2) == 25
    after = Objective(**{name.rpartition(".")[2]: value for name, value in WARMED_UP.items()})
    assert after.beta_at(0) == 1.0


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("population") / "study"
    with pytest.warns(UserWarning, match="the first generation learns 2 epochs"):
        return evolved(folder)


def evolved(folder, **settings):
    return tune(
        tiny_data(), SMALL, tiny_learner(2), search="pbt", population=2, generations=2,
        out_dir=str(folder), progress=False, **settings,
    )  # fmt: skip


def test_members_begin_with_the_weights_of_their_parents(study):
    """One more epoch of small steps leaves a child nearer to its parent than to the other."""

    def weights(number):
        return np.concatenate(
            [value.detach().numpy().ravel() for value in study.run(number).model().parameters()]
        )

    for number in (2, 3):
        parent = study.records[number].parent
        apart = [np.linalg.norm(weights(number) - weights(other)) for other in (parent, 1 - parent)]
        assert 0 < apart[0] < 0.5 * apart[1]
    first, later = (yaml.safe_load((study.place(n) / "config.yaml").read_text()) for n in (0, 2))
    assert first["model"]["init_args"]["objective"]["init_args"]["beta_steps"] == 4
    assert later["model"]["init_args"]["objective"]["init_args"]["beta_steps"] == 0
    assert first["seed"] != later["seed"]


def test_models_without_dropout_keep_their_layers():
    """Dropout 0 has no layer, so that the weights behind it have other names."""
    for dropout in (0.0, 0.2):
        config = to_config({"data": tiny_data(), "model": partial(FLDS, dropout=dropout),
                            "learner": tiny_learner()})  # fmt: skip
        space = default_space(fit, config, num_heldin=4, adapts=True)
        left_out = changes_shapes(config, space, tiny_data())
        assert ("model.dropout" in left_out) == (dropout == 0)
        assert "model.objective.beta" in set(space) - set(left_out)


def test_the_study_of_a_population_tells_of_parents(study):
    assert list(study.table["parent"].notna()) == [False, False, True, True]
    assert study.importance == {}
    assert (study.folder / "lineage.png").stat().st_size > 10_000
    assert not (study.folder / "search.png").exists()
    told = verb.shown(study, {})
    best = study.best
    assert (f"seqvae evaluate {study.place(best.number)}" in told) == (best.parent is not None)
    figure = lineage(study.table, study.facts["space"], population=2, measure="heldin_elbo")
    assert len(figure.axes) == 1 + len(study.facts["space"])


@pytest.mark.filterwarnings("ignore:the first generation")
def test_workers_and_ends_change_no_population(study, tmp_path):
    shutil.copytree(study.folder, tmp_path / "ended")
    for number in (1, 3):
        (tmp_path / f"ended/fits/{number:04d}.json").unlink()
    again = evolved(tmp_path / "ended", jobs=2)
    columns = [name for name in study.table if name != "seconds"]
    assert again.table[columns].equals(study.table[columns])


def test_what_no_population_can_do_is_refused_before_any_fit(tmp_path):
    def refused(sentence, model=SMALL, learner=None, **settings):
        with pytest.raises(InputError, match=sentence):
            tune(tiny_data(), model, learner or tiny_learner(4), out_dir=str(tmp_path / "study"),
                 **settings)  # fmt: skip
        assert not (tmp_path / "study").exists()

    refused("num_fits is none of search 'pbt'; give population", search="pbt", num_fits=9)
    refused("population is none of search 'tpe'; give num_fits", population=9)
    refused("population must be at least 2, got 1", search="pbt", population=1)
    refused(r"generations must be at most learner\.trainer\.max_epochs, which is 4, got 5",
            search="pbt", generations=5)  # fmt: skip
    refused("and the warm-ups of model.objective, such as beta_steps, last 5 epochs",
            partial(VAE, latent_dim=2, objective=Objective(beta_steps=10)), search="pbt",
            generations=2)  # fmt: skip
    refused(r"space\.model\.latent_dim changes the names or shapes of the weights", search="pbt",
            generations=2, space={"model.latent_dim": [2, 3]})  # fmt: skip
    refused(r"space\.model\.dropout changes the names", FLDS, search="pbt", generations=2,
            space={"model.dropout": {"low": 0.0, "high": 0.5}})  # fmt: skip
    refused("divides learner.trainer.max_epochs into generations, which EM has not",
            LinearDynamics, EM(), search="pbt",
            space={"learner.max_iterations": [2, 3]})  # fmt: skip
    refused("space is required", LinearDynamics, EM(), search="pbt")


def test_a_population_claims_no_gain_over_fits_that_have_learned_for_one_generation(study):
    assert study.gain is None
    assert "gain" not in verb.shown(study, {})
