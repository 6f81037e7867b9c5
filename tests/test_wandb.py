from __future__ import annotations

import json
import shutil
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from google.protobuf.message import DecodeError

from seqvae import EM, GradientLearner, LinearDynamics, Run, crossvalidate, fit, infer, tune
from seqvae.config import from_config
from seqvae.console.main import main
from seqvae.errors import InputError
from seqvae.learning.weights_and_biases import has_account, kept_ids
from seqvae.verbs.wandb_results import check_wandb_results, shown_rows
from tiny import SVAE, tiny_data, tiny_learner

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    """A user who never logged in to W&B, who has no keyboard, and whose home is elsewhere."""
    for name in ("API_KEY", "MODE", "DIR", "BASE_URL", "PROJECT", "SILENT", "IDENTITY_TOKEN_FILE",
                 "RUN_ID", "SWEEP_ID"):  # fmt: skip
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("W&B prompted"))
    monkeypatch.setattr("getpass.getpass", lambda *_: pytest.fail("W&B prompted"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")


def learner_with_wandb(max_epochs=2, **logger):
    """As YAML gives it."""
    node = {"class_path": "pytorch_lightning.loggers.WandbLogger", "init_args": logger}
    settings = {"logger": node, "max_epochs": max_epochs, "accelerator": "cpu"}
    trainer = {"class_path": "pytorch_lightning.Trainer", "init_args": settings}
    return from_config({"trainer": trainer, "progress": False}, GradientLearner)


def records(path: Path) -> list[Any]:
    """Read the records of a .wandb file, once its last one is there.

    ``finish`` returns before W&B's service, which is another process, has written all of it.
    """
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with suppress(DecodeError):
            found = list(records_so_far(path.read_bytes()))
            if any(record.HasField("exit") for record in found):
                return found
        time.sleep(0.02)
    pytest.fail(f"W&B never ended {path}")


def records_so_far(content: bytes):
    """Read LevelDB's log format, whose items are protobufs.

    After a header of 7 bytes come blocks of 32768 bytes; a record in one is checksum (4 bytes),
    length (2), kind (1: whole, 2: first, 3: middle, 4: last part) and the part itself.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    position, parts = 7, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield Record.FromString(parts)
            parts = b""


def key(item):
    """The name of a logged value; a figure has further keys below its name."""
    return item.nested_key[0] if item.nested_key else item.key


def offline_run(folder: Path) -> Path:
    (found,) = [path for path in (folder / "wandb").glob("offline-run-*") if path.is_dir()]
    return found


def test_fit_without_account_runs_offline_into_the_run_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("seqvae.verbs.report.report", small_page)
    run = fit(
        tiny_data(), SVAE, learner_with_wandb(project="lorenz"), run_dir=str(tmp_path / "r"),
        wandb_results=["posterior", "model", "report"],
    )  # fmt: skip
    assert wandb.run is None
    assert not (Path.cwd() / "wandb").exists()  # nothing where the user stands
    offline = offline_run(run.folder)
    (log,) = offline.glob("*.wandb")
    found = records(log)

    history = [
        {key(item): json.loads(item.value_json) for item in record.history.item}
        for record in found
        if record.HasField("history")
    ]
    logged = {name for row in history for name in row}
    assert {"val/elbo", "val/co_bps", "train/elbo", "train/beta", "epoch"} <= logged
    last = [row["val/elbo"] for row in history if "val/elbo" in row][-1]
    assert str(last)[:8] in run.files.history.read_text()

    config = {}
    for record in found:
        sources = [record.run.config] if record.HasField("run") else []
        sources += [record.config] if record.HasField("config") else []
        for item in (item for source in sources for item in source.update):
            config[key(item)] = json.loads(item.value_json)
    model = config["model"]
    assert model["class_path"] == "seqvae.models.SequentialVAE"
    assert model["init_args"]["factor_dim"] == 3
    assert config["seed"] == 0

    pictures = {path.name.rsplit("_", 2)[0] for path in offline.rglob("*.png")}
    assert {"learning_curves", "rasters_and_rates", "latents", "inferred_inputs"} <= pictures
    assert {f"figures/{name}" for name in pictures} <= logged
    check_results(run, offline, found)


def small_page(run: Run, *, out: str) -> str:
    """Stands for the page, which has tests of its own."""
    assert run.model() is not None
    Path(out).write_text("<p>a page</p>")
    return out


def check_results(run, offline, found):
    """What a later ``wandb sync`` needs of posterior, model and report is all there."""
    values = {"/".join(item.nested_key): json.loads(item.value_json)
              for record in found for item in record.history.item}  # fmt: skip
    for name in ("posterior", "report", "figures/latents"):
        path = offline / "files" / values[f"{name}/path"]
        assert path.stat().st_size == values[f"{name}/size"]
        if name == "report":
            assert path.read_bytes() == (run.folder / "report.html").read_bytes()
        elif name == "posterior":
            table = json.loads(path.read_text())
    columns = ["trial", "time", "split", "factor 0", "factor 1", "factor 2"]
    assert table["columns"] == columns
    assert len(table["data"]) == 24 * 10
    artifacts = {record.artifact.type: record.artifact for record in found
                 if record.HasField("artifact")}  # fmt: skip
    contents = {item.path: Path(item.local_path) for kind in ("posterior", "model")
                for item in artifacts[kind].manifest.contents}  # fmt: skip
    copy = offline / "copy"
    copy.mkdir()
    for name, path in contents.items():
        shutil.copy(path, copy / name)
    again = infer(Run(copy), tiny_data(), num_samples=2)
    with xr.open_dataset(copy / "posterior.nc") as posterior:
        assert posterior.sizes == again.sizes


@pytest.mark.parametrize(
    ("asked", "learner", "in_memory", "sentence"),
    [
        (["model"], tiny_learner(), False, "needs a W&B logger: give --learner.trainer.logger"),
        (["model"], learner_with_wandb(), True, "needs a run folder"),
    ],
)
def test_results_that_nobody_can_hand_over_are_refused(
    tmp_path, asked, learner, in_memory, sentence
):
    run_dir = None if in_memory else str(tmp_path / "r")
    with pytest.raises(InputError, match=f"wandb_results.*{sentence}"):
        fit(tiny_data(), SVAE, learner, run_dir=run_dir, in_memory=in_memory, wandb_results=asked)
    assert not (tmp_path / "r").exists()


def test_result_of_another_name_is_refused():
    with pytest.raises(InputError, match="'page' is none of posterior, model, report"):
        check_wandb_results(["page"], learner_with_wandb(), in_memory=False)


def test_result_that_fails_costs_no_fit(tmp_path, monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
    monkeypatch.setattr(wandb.Artifact, "add_file", lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match="W&B did not get the model: ZeroDivisionError"):
        fit(tiny_data(), SVAE, learner_with_wandb(1), run_dir=str(tmp_path / "r"),
            wandb_results=["model"])  # fmt: skip
    assert (tmp_path / "r" / "weights.pt").exists()


def test_table_shows_whole_trials_as_far_as_it_may(monkeypatch):
    monkeypatch.setattr("seqvae.verbs.wandb_results.MOST_ROWS", 5)
    table = pd.DataFrame({"trial": [7, 7, 7, 8, 8, 8, 9], "factor 0": np.arange(7.0)})
    assert shown_rows(table)["trial"].tolist() == [7, 7, 7]
    assert shown_rows(table[:5])["trial"].tolist() == [7, 7, 7, 8, 8]
    long = table.assign(trial=7)
    assert len(shown_rows(long)) == 5


def test_sweep_runs_as_it_is(tmp_path, monkeypatch):
    sweep = yaml.safe_load((Path(__file__).parent.parent / "configs/sweep.yaml").read_text())
    sampled = {
        name: node["values"][-1] if "values" in node else (node["min"] + node["max"]) / 2
        for name, node in sweep["parameters"].items()
    }
    place = sweep["command"].index("${args}")
    words = sweep["command"]
    words[place : place + 1] = [f"--{name}={value}" for name, value in sampled.items()]
    assert words[:2] == ["seqvae", "fit"]
    small = ["--data.source.num_trials=24", "--data.source.num_val=8", "--run_dir", "r",
             "--data.source.num_time_bins=10", "--learner.trainer.max_epochs=1",
             "--learner.trainer.check_val_every_n_epoch=1"]  # fmt: skip
    monkeypatch.chdir(Path(__file__).parent.parent)
    small[3] = str(tmp_path / "r")
    for name, value in (("RUN_ID", "agent1"), ("SWEEP_ID", "sweep1")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
    assert main([*words[1:], *small]) == 0
    run = Run(tmp_path / "r")
    assert run.config["model"]["init_args"]["factor_dim"] == sampled["model.factor_dim"]
    assert sweep["metric"]["name"] in run.history[-1]
    assert ids(tmp_path / "r") == ["agent1"]
    monkeypatch.delenv("WANDB_RUN_ID")
    assert kept_ids(tmp_path / "r", 1) == ["agent1"]


@pytest.mark.filterwarnings("ignore:.*largest of the grid")
def test_crossvalidation_logs_table_curve_and_cells(tmp_path):
    found = crossvalidate(
        tiny_data(), dims=[1, 2], scheme="gabriel", trial_folds=2, neuron_folds=2, progress=False,
        out_dir=str(tmp_path / "cv"), wandb_project="lorenz", wandb_cells=True,
        subsample=[0.4, 0.7, 1.0],
    )  # fmt: skip
    assert wandb.run is None
    runs = [path for path in (found.folder / "wandb").glob("offline-run-*") if path.is_dir()]
    assert len(runs) == 1 + len(found.scores)
    (whole,) = [run for run in runs if list(run.rglob("curve*.png"))]
    (written,) = whole.rglob("scores*.table.json")
    told = json.loads(written.read_text())
    assert told["columns"] == list(found.scores.columns)
    score = told["columns"].index("score")
    assert [row[score] for row in told["data"]] == pytest.approx(list(found.scores["score"]))
    (log,) = whole.glob("*.wandb")
    summaries = {
        item.key if not item.nested_key else "/".join(item.nested_key): json.loads(item.value_json)
        for record in records(log)
        if record.HasField("summary")
        for item in record.summary.update
    }
    assert summaries["best_model"] == "pca"
    assert list(whole.rglob("growth*.png"))
    assert summaries["pca/swept"] == "dimension"
    (_, four_times) = found.summary["growth"]["models"]["pca"]["ahead"]
    assert summaries["pca/with_4_times_the_trials"]["dim"] == four_times["dim"]
    assert summaries["pca/chosen_dim"] == found.chosen_dim("pca")
    assert summaries["pca/confidence_set"] == found.summary["models"]["pca"]["confidence_set"]


@pytest.mark.filterwarnings("ignore:.*largest of the grid")
def test_crossvalidation_that_is_called_again_goes_on_with_its_wandb_runs(tmp_path):
    def call():
        return crossvalidate(
            tiny_data(), dims=[1], scheme="gabriel", trial_folds=2, neuron_folds=2, progress=False,
            out_dir=str(tmp_path / "cv"), wandb_project="lorenz", wandb_cells=True,
        )  # fmt: skip

    call()
    found = sorted(ids(tmp_path / "cv"))
    assert len(set(found)) == len(found)
    call()
    assert sorted(set(ids(tmp_path / "cv"))) == found


def test_search_logs_a_run_for_each_fit_and_goes_on_with_them(tmp_path):
    def call():
        return tune(
            tiny_data(), LinearDynamics, EM(max_iterations=1, progress=False), num_fits=3,
            space={"model.latent_dim": [1, 2, -1]}, search="random", seed=4,
            out_dir=str(tmp_path / "study"), wandb_project="lorenz", progress=False,
        )  # fmt: skip

    study = call()
    assert wandb.run is None
    runs = [path for path in (study.folder / "wandb").glob("offline-run-*") if path.is_dir()]
    assert len(runs) == 4
    (whole,) = [run for run in runs if list(run.rglob("picture*.png"))]
    (written,) = whole.rglob("fits*.table.json")
    told = json.loads(written.read_text())
    assert told["columns"] == list(study.table.columns)
    assert [row[0] for row in told["data"]] == [0, 1, 2]
    found = set(ids(tmp_path / "study"))
    call()
    assert set(ids(tmp_path / "study")) == found


def test_second_fit_of_a_process_has_its_own_wandb_run(tmp_path, monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
    learner = learner_with_wandb(1)
    for name in ("a", "b"):
        fit(tiny_data(), SVAE, learner, run_dir=str(tmp_path / name))
        assert wandb.run is None
    assert offline_run(tmp_path / "a").name != offline_run(tmp_path / "b").name


def ids(folder: Path) -> list[str]:
    """The ids of the W&B runs that lie in a folder, in the order of their begin."""
    paths = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    return [path.stem.removeprefix("run-") for path in sorted(paths)]


def test_resumed_fit_goes_on_with_its_wandb_run(tmp_path, monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
    folder = tmp_path / "r"
    learner = learner_with_wandb(1)
    fit(tiny_data(), SVAE, learner, run_dir=str(folder))
    fit(tiny_data(), SVAE, learner_with_wandb(2), run_dir=str(folder), resume=True)
    first, second = ids(folder)
    assert first == second
    fit(tiny_data(), SVAE, learner, run_dir=str(folder), overwrite=True)
    (other,) = ids(folder)
    assert other != first


def test_id_that_the_user_gave_is_the_one_of_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
    fit(tiny_data(), SVAE, learner_with_wandb(1, id="mine"), run_dir=str(tmp_path / "r"))
    assert ids(tmp_path / "r") == ["mine"]
    assert not (tmp_path / "r" / "wandb_ids.json").exists()


@pytest.mark.parametrize("text", ["{", "3", '["../../x", null]'])
def test_damaged_ids_cost_no_fit(tmp_path, text):
    path = tmp_path / "wandb_ids.json"
    path.write_text(text)
    (first,) = kept_ids(tmp_path, 1)
    assert first.isalnum()
    assert kept_ids(tmp_path, 2)[0] == first


def test_wandb_that_cannot_be_started_costs_no_fit(tmp_path, monkeypatch):
    def refuse(**_):
        raise wandb.Error("no such project")

    monkeypatch.setattr(wandb, "init", refuse)
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
    with pytest.warns(UserWarning, match="W&B cannot be started, and logs nothing.*no such proj"):
        run = fit(tiny_data(), SVAE, learner_with_wandb(1), run_dir=str(tmp_path / "r"))
    assert len(run.history) == 1


def test_given_folder_of_wandb_is_respected(tmp_path, monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
    (tmp_path / "mine").mkdir()
    fit(
        tiny_data(),
        SVAE,
        learner_with_wandb(1, save_dir=str(tmp_path / "mine")),
        run_dir=str(tmp_path / "r"),
    )
    assert offline_run(tmp_path / "mine")
    assert not (tmp_path / "r" / "wandb").exists()


def test_failed_fit_closes_its_wandb_run(tmp_path, monkeypatch):
    def fail(self, *args):
        raise RuntimeError("power cut")

    monkeypatch.setattr("seqvae.learning.checkpoints.SaveLast.on_train_epoch_end", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tiny_data(), SVAE, learner_with_wandb(1), run_dir=str(tmp_path / "r"))
    assert wandb.run is None


def test_wandb_run_of_the_caller_stays_open(tmp_path, monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
    (tmp_path / "outer").mkdir()
    with wandb.init(mode="offline", dir=str(tmp_path / "outer")) as outer:
        with pytest.warns(UserWarning, match="wandb run already in progress"):
            fit(tiny_data(), SVAE, learner_with_wandb(1), run_dir=str(tmp_path / "r"))
        assert wandb.run is outer


def test_fit_without_wandb_does_not_touch_it(tmp_path, monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
    monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("W&B was started"))
    fit(tiny_data(), SVAE, tiny_learner(1), run_dir=str(tmp_path / "r"))


def test_account_is_known_by_key_or_netrc(tmp_path, monkeypatch):
    assert not has_account()
    netrc = tmp_path / "netrc"
    netrc.write_text("machine github.com login me password x\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert not has_account()
    netrc.write_text("machine api.wandb.ai login user password x\n")
    assert has_account()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.lab.org:8080")
    assert not has_account()
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert has_account()
