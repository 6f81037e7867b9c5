"""What every learner promises; members are found by walking the family's folder."""

from __future__ import annotations

import copy
import csv
import dataclasses
import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from walk import members

import seqvae.learning
from seqvae.compute import noise
from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.learning import EM, ClosedForm, GradientLearner, Learner, SwitchingEM
from seqvae.learning.learner import check_pair
from seqvae.learning.observers import Figures, Observer, RunFolder, Stage
from seqvae.models import PCA, LinearDynamics, Model, SwitchingLinearDynamics
from seqvae.storage.files import RunFiles
from seqvae.types import DataSpec
from tiny import LORENZ, SVAE, in_memory, tiny_data, tiny_learner, weights


class Case(NamedTuple):
    """A short learner, and a model for it."""

    learner: Any
    model: Any


CASES: dict[type, Case] = {
    GradientLearner: Case(tiny_learner(3), SVAE),
    EM: Case(EM(max_iterations=4, validate_every=2, progress=False),
             partial(LinearDynamics, latent_dim=2)),
    SwitchingEM: Case(
        SwitchingEM(max_iterations=2, linear_iterations=2, num_starts=2, progress=False),
        partial(SwitchingLinearDynamics, latent_dim=2, num_states=2),
    ),
    ClosedForm: Case(ClosedForm(), partial(PCA, latent_dim=2)),
}  # fmt: skip
MEMBERS = members(seqvae.learning, Learner)


@pytest.fixture(params=MEMBERS, ids=lambda member: member.__name__)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


class Ear(Observer):
    """Notes what it hears."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.rows: list[dict[str, float | int]] = []
        self.last: dict[str, torch.Tensor] = {}

    def begin(self, stage: Stage) -> None:
        self.events.append("begin")

    def best(self, stage: Stage, score: float, *, is_final: bool = False) -> None:
        self.events.append("best")

    def progress(self, stage: Stage) -> None:
        self.events.append("progress")

    def end(self, stage: Stage) -> None:
        self.events.append("end")
        self.rows = [dict(row) for row in stage.rows]
        self.last = copy.deepcopy(stage.model.state_dict())


def learned(
    case: Case, data: NeuralData | None = None, observers: Any = (), seed: int = 0
) -> Model:
    """Learn as ``fit`` does, but with these observers only."""
    data = tiny_data() if data is None else data
    data.setup()
    data.seed = seed
    with noise.apart(seed):
        model = case.model(data.spec)
        model.seed = seed
        model.initialize(data)
        check_pair(case.learner, model)
        case.learner.check(model, data)
        case.learner.learn(model, data, observers=observers)
    return model


def assert_equal_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert list(one) == list(other)
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_every_member_has_a_case() -> None:
    missing = [member.__name__ for member in MEMBERS if member not in CASES]
    assert not missing, f"give each learner a short setting and a model in CASES: {missing}"


def test_alone_it_touches_no_file(case: Case, tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a bare learner writes a file")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("seqvae.storage.files.tempfile.mkstemp", refuse)
    model = learned(case)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert os.listdir(tmp_path) == []


def test_with_files_it_learns_what_it_learns_without(case: Case, tmp_path: Path) -> None:
    run = RunFiles(tmp_path)
    ear = Ear()
    with_files = learned(case, observers=(*case.learner.observers_of(run)[:1], ear))
    alone = learned(case)
    assert_equal_weights(with_files.state_dict(), alone.state_dict())
    assert_equal_weights(weights(run.weights)["state_dict"], alone.state_dict())
    assert_equal_weights(ear.last, alone.state_dict())
    with run.history.open() as file:
        rows = list(csv.DictReader(file))
    assert [{name: float(value) for name, value in row.items() if value} for row in rows] == [
        {name: float(value) for name, value in row.items()} for row in ear.rows
    ]


def test_observers_hear_the_beginning_a_row_the_best_and_the_end(case: Case) -> None:
    ear = Ear()
    learned(case, observers=(ear,))
    assert ear.events[0] == "begin"
    assert ear.events[-1] == "end"
    assert {"best", "progress"} <= set(ear.events)
    assert ear.rows
    assert all("step" in row for row in ear.rows)


def test_equal_seeds_learn_equal_parameters(case: Case) -> None:
    one, other = learned(case, seed=3), learned(case, seed=3)
    assert_equal_weights(one.state_dict(), other.state_dict())


def test_the_data_stay_as_they_are(case: Case) -> None:
    data = in_memory()
    data.setup()
    before = copy.deepcopy(data.batch(data.trials("all")))
    learned(case, data)
    after = data.batch(data.trials("all"))
    for name in ("observed", "observed_mask", "target", "weight", "inputs", "lengths", "trial"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name


def test_validation_trials_change_nothing_where_they_do_not_select(case: Case) -> None:
    if case.learner.selects:
        pytest.skip("this learner selects by validation trials")
    recording = LORENZ.load()
    activity = recording.activity.copy()
    shuffled = np.random.default_rng(0).permutation(activity[recording.split == "val"])
    activity[recording.split == "val"] = shuffled[:, ::-1]
    other = in_memory(dataclasses.replace(recording, activity=activity))
    one, changed = learned(case, in_memory()), learned(case, other)
    assert_equal_weights(one.state_dict(), changed.state_dict())


def test_a_model_that_it_cannot_learn_is_refused_by_name(case: Case) -> None:
    class Other(Model):
        """A model that no learner knows."""

        def forward(self, batch: Any, num_samples: int = 1) -> Any: ...

        def sample(self, num_trials: int, inputs: Any = None) -> Any: ...

    name = type(case.learner).__name__
    with pytest.raises(InputError, match=f"{name} cannot learn a Other"):
        check_pair(case.learner, Other(DataSpec((0,), 1, 0, 1, 1, None)))


def test_run_folder_and_figures_come_of_one_call(case: Case, tmp_path: Path) -> None:
    kinds = {type(one) for one in case.learner.observers_of(RunFiles(tmp_path))}
    assert {RunFolder, Figures} <= kinds
