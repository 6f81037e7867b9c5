"""The README's examples are run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from seqvae.console.main import main
from seqvae.data import Recording
from seqvae.data.sources import write_hdf5

README = Path(__file__).parent.parent / "README.md"


def examples(language: str) -> list[str]:
    text = README.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(0.5, size=(30, 12, 10)).astype(float)


def test_python_example_runs(counts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = examples("python")
    names = {"counts": counts}
    exec(code.replace("max_epochs=200", "max_epochs=1"), names)
    assert names["run"].config["learner"]["init_args"]["trainer"]["init_args"]["max_epochs"] == 1
    assert names["posterior"].rates.dims == ("trial", "time", "neuron")
    assert np.isfinite(float(capsys.readouterr().out))


def test_yaml_examples_run(counts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_hdf5(Recording(counts, bin_width=0.01), tmp_path / "mine.h5")
    own, wandb = (yaml.safe_load(text) for text in examples("yaml"))
    own["data"]["source"]["init_args"]["keys"] = {"activity": "activity"}
    assert wandb["learner"]["trainer"]["logger"]["class_path"].endswith("WandbLogger")
    own["learner"] = {"trainer": {"max_epochs": 1}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(own))
    assert main(["fit", "--config", "mine.yaml", "--run_dir", "runs/mine"]) == 0


def test_commands_name_files_that_exist():
    commands = "\n".join(examples("bash"))
    for config in re.findall(r"configs/\S+\.yaml", commands):
        assert (README.parent / config).exists()
