"""Run folders that an earlier version has left are read as ever."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqvae import Run, evaluate, infer
from seqvae.config import to_config
from seqvae.console.main import main
from seqvae.data import NeuralData
from seqvae.learning import Learner
from seqvae.runs import ModelFactory, Recipe
from tiny import weights

HERE = Path(__file__).parent / "runs_before"
RUNS = ("svae", "plds")
# Another torch, or another CPU, moves the last digits of numbers in single precision.
NEARLY: dict[str, float] = {"rel": 1e-4, "abs": 1e-5}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A copy of the runs beside their data, which their configs name without a folder."""
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
    shutil.copytree(HERE, tmp_path / "before")
    monkeypatch.chdir(tmp_path / "before")


def leaves(tree: Any, key: str = "") -> dict[str, Any]:
    """The numbers and words of a JSON tree by their path."""
    if isinstance(tree, dict):
        items = [(f"{key}.{name}", value) for name, value in tree.items()]
    elif isinstance(tree, list):
        items = [(f"{key}[{i}]", value) for i, value in enumerate(tree)]
    else:
        return {key: tree}
    return {path: leaf for name, value in items for path, leaf in leaves(value, name).items()}


@pytest.mark.parametrize("name", RUNS)
def test_an_old_run_is_scored_as_it_was(name, tmp_path):
    evaluate(name, num_samples=10, out=str(tmp_path / "metrics.json"))
    now, then = (
        json.loads(path.read_text())
        for path in (tmp_path / "metrics.json", Path(name) / "expected_metrics.json")
    )
    assert set(now.pop("advice")) == set(then.pop("advice"))
    now, then = leaves(now), leaves(then)
    assert {key: now.get(key) for key in then} == {
        key: pytest.approx(value, **NEARLY) if isinstance(value, float) else value
        for key, value in then.items()
    }


@pytest.mark.parametrize("name", RUNS)
def test_an_old_run_infers(name):
    answer = infer(name, num_samples=2)
    assert answer.sizes["trial"] == 8
    assert all(np.isfinite(variable).all() for variable in answer.values())


@pytest.mark.parametrize("name", RUNS)
def test_classes_and_settings_of_an_old_config_are_written_as_they_were(name):
    recipe, config = Recipe.read(name), Run(name).config
    parts = {"data": NeuralData, "model": ModelFactory, "learner": Learner}
    for section, annotation in parts.items():
        then = leaves(config[section])
        now = leaves(to_config(recipe.build(section, annotation)))
        assert {key: now.get(key) for key in then} == then


@pytest.mark.parametrize("name", RUNS)
def test_an_old_run_that_had_no_checkpoint_yet_is_resumed_from_its_beginning(name):
    before = weights(Path(name) / "weights.pt")["state_dict"]
    Path(name, "weights.pt").unlink()
    argv = ["fit", "--config", f"{name}/config.yaml", "--run_dir", name, "--resume"]
    assert main(argv) == 0
    after = weights(Path(name) / "weights.pt")["state_dict"]
    assert list(after) == list(before)
    for key in before:
        torch.testing.assert_close(after[key], before[key], rtol=1e-3, atol=1e-4)
