from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from dataclasses import replace
from functools import partial
from importlib.metadata import version

import pytest
import torch
import yaml

from seqvae import VAE, InputError, Run, evaluate, fit, infer
from seqvae.data.sources import Lorenz
from seqvae.runs.provenance import differences
from tiny import LORENZ, SVAE, in_memory, tiny_data, tiny_learner


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
        return fit(
            tiny_data(), SVAE, tiny_learner(2), run_dir=str(tmp_path_factory.mktemp("runs") / "r")
        ).folder


@pytest.fixture
def folder(fitted, tmp_path):
    """A copy of a run folder, to spoil."""
    return shutil.copytree(fitted, tmp_path / "r")


def again(folder, data=None, model=SVAE, **settings):
    data = data if data is not None else tiny_data()
    return fit(data, model, tiny_learner(2), run_dir=str(folder), **settings)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- the folder ----------------------------------------------------------------------------------


def test_run_folder_holds_what_the_readme_names(fitted):
    names = {path.name for path in fitted.iterdir()}
    assert {"config.yaml", "weights.pt", "last.ckpt", "history.csv", "provenance.json"} <= names
    assert not [name for name in names if name.startswith(".") or "tmp" in name]


def test_provenance_tells_versions_seed_data_command_and_device(fitted):
    told = json.loads((fitted / "provenance.json").read_text())
    data = tiny_data()
    assert told["seed"] == 0
    assert told["versions"]["torch"] == version("torch")  # which a build may tell otherwise
    assert told["command"] == sys.argv
    assert told["device"]
    assert told["data"]["checksum"] == data.recording.checksum
    assert told["data"]["num_trials"] == {"train": 16, "val": 8, "test": 0}
    assert told["data"]["null_rates"] == pytest.approx(data.train_mean.tolist())


def test_reopened_run_knows_seed_spec_and_hash(fitted):
    run, same = Run(fitted), Run(str(fitted))
    assert run.seed == 0
    assert run.spec == tiny_data().spec
    assert run.hash == same.hash
    assert len(run.hash) == 12
    assert repr(run) == f"Run({str(fitted)!r})"


def test_reopened_run_finds_its_data(fitted):
    data = Run(fitted).data()
    assert data.recording.checksum == tiny_data().recording.checksum
    assert (data.split == tiny_data().split).all()


def test_reopened_model_is_ready_for_inference(fitted):
    model = Run(fitted).model()
    assert not model.training
    assert model.initialized


# --- a folder that would lose something ----------------------------------------------------------


def test_existing_run_is_refused_and_nothing_lost(folder):
    before = contents(folder)
    with pytest.raises(InputError, match="already holds a run; give a new folder, --resume"):
        again(folder)
    assert contents(folder) == before


def test_overwritten_run_starts_anew(folder):
    (folder / "posterior.nc").write_text("of the old run")
    run = again(folder, model=partial(VAE, latent_dim=2), overwrite=True)
    assert type(run.model()) is VAE
    assert not (folder / "posterior.nc").exists()


@pytest.mark.parametrize("settings", [{}, {"overwrite": True}, {"resume": True}])
@pytest.mark.parametrize("name", ["thesis.tex", "config.yaml"])
def test_folder_that_is_not_a_run_is_refused_and_nothing_lost(tmp_path, settings, name):
    (tmp_path / name).write_text("seed: 3\n")
    with pytest.raises(InputError, match="is not empty and not a run; give a new folder"):
        again(tmp_path, **settings)
    assert contents(tmp_path) == {tmp_path / name: b"seed: 3\n"}


def test_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "r").write_text("mine")
    with pytest.raises(InputError, match="is a file; give a folder"):
        again(tmp_path / "r", overwrite=True)
    assert (tmp_path / "r").read_text() == "mine"


def test_nothing_to_resume_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no run to resume; leave resume out"):
        again(tmp_path / "r", resume=True)
    assert not (tmp_path / "r").exists()


def test_resume_and_overwrite_exclude_each_other(folder):
    before = contents(folder)
    with pytest.raises(InputError, match="exclude each other"):
        again(folder, resume=True, overwrite=True)
    assert contents(folder) == before


def test_empty_folder_is_taken(tmp_path):
    assert again(tmp_path).folder == tmp_path


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_cannot_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written: Permission denied"):
        again(tmp_path / "r")


def test_linked_folder_is_not_overwritten(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    before = contents(folder)
    with pytest.raises(InputError, match=r"run_dir .* cannot be written anew: it is a link"):
        again(tmp_path / "link", overwrite=True)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": partial(SVAE, factor_dim=4)}, "model.init_args.factor_dim was 3 and is now 4"),
        ({"model": VAE}, "model.class_path was 'seqvae.models.SequentialVAE' and is now"),
        ({"seed": 1}, "seed was 0 and is now 1"),
        ({"data": tiny_data(batch_size=4)}, "data.init_args.batch_size was 8 and is now 4"),
        ({"data": tiny_data(Lorenz(num_trials=30, num_val=8))}, "not the recording that"),
    ],
)
def test_resuming_with_another_setting_is_refused_by_its_key(folder, settings, words):
    before = contents(folder)
    with pytest.raises(InputError, match=words):
        again(folder, resume=True, **settings)
    assert contents(folder) == before


def test_differences_name_a_key_that_came_or_went():
    assert differences({"a": {"b": 1}}, {"a": {"b": 1}}, "x") == []
    assert differences({"a": {"b": 1}}, {"a": {}}, "x") == ["x.a.b was 1 and is now None"]
    assert differences({}, {"c": [1]}, "x") == ["x.c was None and is now [1]"]


# --- damaged and hostile files -------------------------------------------------------------------


class Code:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", ["weights.pt", "last.ckpt"])
@pytest.mark.parametrize("how", ["truncated", "code", "foreign"])
def test_spoilt_weights_and_checkpoints_are_refused(folder, tmp_path, name, how):
    if how == "truncated":
        truncate(folder / name)
    elif how == "code":
        (folder / name).write_bytes(pickle.dumps(Code(f"touch {tmp_path / 'ran'}")))
    else:
        torch.save({"epoch": 3, "model": torch.ones(3)}, folder / name)
    before = contents(folder)
    with pytest.raises(InputError, match=rf"{name} (cannot be read|is not a)"):
        _ = infer(str(folder)) if name == "weights.pt" else again(folder, resume=True)
    assert contents(folder) == before
    assert not (tmp_path / "ran").exists()


def test_checkpoint_of_another_model_is_refused(folder, tmp_path):
    other = again(tmp_path / "other", model=partial(SVAE, factor_dim=4))
    shutil.copy(other.files.last_checkpoint, folder / "last.ckpt")
    with pytest.raises(
        InputError, match=r"last\.ckpt: weight '.*' has shape .* but the model needs"
    ):
        again(folder, resume=True)


def test_run_without_weights_says_so(folder):
    (folder / "weights.pt").unlink()
    with pytest.raises(InputError, match="the run has saved no weights yet"):
        infer(str(folder))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("config.yaml", None, "is not a run: it has no config.yaml"),
        ("config.yaml", "seed: [", "line 1, column"),
        ("config.yaml", "seed: 0\n", "has no section 'data'"),
        ("config.yaml", "just words", "has no section 'seed'"),
        ("config.yaml", "a: !!python/object/apply:os.system ['touch ran']", "line 1, column"),
        ("provenance.json", None, "is not a run: it has no provenance.json"),
        ("provenance.json", "{", "is damaged; the run cannot be read"),
        ("provenance.json", "[1]", "is damaged; the run cannot be read"),
        ("provenance.json", '{"data": {}}', "is damaged; the run cannot be read"),
        ("config.yaml", "{seed: x, data: {init_args: {}}, model: 1, learner: 1}", "seed must be"),
        ("config.yaml", "{seed: 0, data: [1], model: 1, learner: 1}", "data must hold class_path"),
    ],
)
def test_damaged_run_is_refused_in_one_sentence(folder, monkeypatch, name, text, words):
    monkeypatch.chdir(folder)
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
    with pytest.raises(InputError, match=words):
        Run(folder)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"foo": 1}, "spec.foo does not exist"),
        ({"heldin": 3}, "spec.heldin must be"),
        ({"num_neurons": "x"}, "spec.num_neurons must be int"),
        ({"num_neurons": -5}, "num_neurons must be from 1"),
    ],
)
def test_damaged_facts_of_the_data_are_refused_by_name(folder, change, words):
    content = json.loads((folder / "provenance.json").read_text())
    content["data"]["spec"].update(change)
    (folder / "provenance.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=words):
        Run(folder).model()


@pytest.mark.parametrize("name", ["loops", "callbacks", "lr_schedulers", "optimizer_states"])
def test_checkpoint_that_lacks_a_part_is_refused(folder, name):
    content = torch.load(folder / "last.ckpt", weights_only=True)
    torch.save({**content, name: 3}, folder / "last.ckpt")
    with pytest.raises(InputError, match="is not a training checkpoint of seqvae"):
        again(folder, resume=True)


def test_missing_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist; give the run_dir of a fit"):
        Run(tmp_path / "nowhere")


def hostile(folder, tmp_path, monkeypatch, spoil):
    """Let the config of a run name a module that leaves a mark when it is imported."""
    mark = tmp_path / "imported"
    (tmp_path / "hostile_module.py").write_text(
        f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
        "from seqvae.models import VAE\nfrom seqvae.observations import Poisson\n"
        "class Own(VAE): pass\nclass Likelihood(Poisson): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hostile_module", raising=False)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    spoil(config)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return mark


def as_model(config):
    config["model"]["class_path"] = "hostile_module.Own"


def as_part(config):
    config["model"]["init_args"]["observation"] = {"class_path": "hostile_module.Likelihood"}


def as_short_form(config):
    config["model"]["init_args"]["observation"] = "hostile_module.Likelihood"


def as_command(config):
    config["model"]["init_args"]["observation"] = {
        "class_path": "os.system",
        "init_args": {"command": "touch imported"},
    }


def as_look_alike(config):
    config["model"]["init_args"]["observation"] = {"class_path": "seqvaehostile_module.Likelihood"}


@pytest.mark.parametrize("spoil", [as_model, as_part, as_short_form, as_command, as_look_alike])
@pytest.mark.parametrize("verb", [infer, evaluate])
def test_hostile_class_paths_are_refused_without_import(folder, tmp_path, monkeypatch, spoil, verb):
    mark = hostile(folder, tmp_path, monkeypatch, spoil)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"is no class of seqvae, torch\.optim or pytorch_light"):
        verb(str(folder))
    assert not mark.exists()
    assert "hostile_module" not in sys.modules


def test_class_that_is_not_of_the_family_is_refused(folder, tmp_path, monkeypatch):
    def spoil(config):
        config["model"]["init_args"]["observation"] = {"class_path": "seqvae.priors.AR1"}

    hostile(folder, tmp_path, monkeypatch, spoil)
    with pytest.raises(InputError, match=r"model\.observation must be a class of Observation"):
        infer(str(folder))


def test_hostile_source_is_refused_with_trusted_model(folder, tmp_path, monkeypatch):
    def spoil(config):
        config["data"]["init_args"]["source"] = {"class_path": "hostile_module.Source"}

    mark = hostile(folder, tmp_path, monkeypatch, spoil)
    with pytest.raises(InputError, match=r"'hostile_module\.Source' is no class of seqvae"):
        infer(str(folder))
    assert not mark.exists()


def test_trust_allows_parts_of_ones_own(folder, tmp_path, monkeypatch):
    mark = hostile(folder, tmp_path, monkeypatch, as_part)
    assert infer(str(folder), num_samples=1, trust=True).sizes["trial"] == 24
    assert mark.exists()


def test_saved_trainer_is_never_built(folder, tmp_path, monkeypatch):
    def spoil(config):
        config["learner"] = {"class_path": "hostile_module.Learner"}

    mark = hostile(folder, tmp_path, monkeypatch, spoil)
    infer(str(folder), num_samples=1)
    assert not mark.exists()


# --- data that changed ---------------------------------------------------------------------------


def test_source_that_changed_is_refused(folder):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"]["init_args"]["source"]["init_args"]["seed"] = 1
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match=r"the source is not what .* was trained on"):
        infer(str(folder))
    assert infer(str(folder), tiny_data(), num_samples=1).sizes["trial"] == 24


def test_run_trained_on_arrays_in_memory_needs_them_again(tmp_path):
    run = again(tmp_path / "r", data=in_memory())
    assert infer(run, num_samples=1).sizes["trial"] == 24
    reopened = Run(run.folder)
    with pytest.raises(InputError, match="was trained on arrays in memory; give the data again"):
        infer(reopened)
    found = infer(reopened, in_memory(LORENZ.load()), num_samples=3)
    assert found.equals(infer(run, num_samples=3))


def test_run_in_memory_is_resumed_with_the_same_arrays_only(tmp_path):
    again(tmp_path / "r", data=in_memory())
    again(tmp_path / "r", data=in_memory(), resume=True)
    with pytest.raises(InputError, match="not the recording that"):
        again(tmp_path / "r", data=in_memory(replace(LORENZ, seed=9).load()), resume=True)
