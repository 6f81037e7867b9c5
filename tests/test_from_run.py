from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from seqvae import EM, FLDS, VAE, InputError, LinearDynamics, NeuralData, Run, fit
from seqvae.config import to_config
from seqvae.console.main import main
from seqvae.data import CoordinatedDropout
from seqvae.data.sources import HDF5, write_hdf5
from seqvae.runs import Recipe
from tiny import LORENZ, SVAE, first_inequality, in_memory, tiny_data, tiny_learner, weights

SMALL = {
    "VAE": partial(VAE, latent_dim=2, factor_dim=4, dropout=0.1, validation_samples=2),
    "SequentialVAE": partial(SVAE, dropout=0.2),
    "FLDS": partial(FLDS, latent_dim=2, validation_samples=2),
    "LinearDynamics": partial(LinearDynamics, latent_dim=2),
}


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})


def learner(name, **settings):
    if name == "LinearDynamics":
        return EM(max_iterations=4, progress=False, **settings)
    return tiny_learner(3, **settings)


def assert_equal(one, other):
    """Weights and history of two runs are equal bit for bit."""
    one, other = Path(one), Path(other)
    assert first_inequality(weights(one / "weights.pt"), weights(other / "weights.pt")) is None
    assert (one / "history.csv").read_bytes() == (other / "history.csv").read_bytes()


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run of each model, fitted from Python."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
        folder = tmp_path_factory.mktemp("runs")
        return {
            name: fit(tiny_data(), model, learner(name), run_dir=str(folder / name), seed=3)
            for name, model in SMALL.items()
        }


@pytest.fixture
def run(fitted):
    return fitted["VAE"]


def edited(run, folder, change):
    """The provenance of a run, alone in a folder, with something changed."""
    content = json.loads((run.folder / "provenance.json").read_text())
    change(content)
    folder.mkdir(exist_ok=True)
    (folder / "provenance.json").write_text(json.dumps(content))
    return str(folder)


# --- repetitions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_a_run_fitted_in_python_is_repeated_bit_for_bit_from_its_provenance(fitted, tmp_path, name):
    torch.manual_seed(99)  # the caller's randomness has no part in it
    again = fit(from_run=str(fitted[name].folder / "provenance.json"), run_dir=str(tmp_path / "b"))
    assert_equal(fitted[name].folder, again.folder)
    assert again.config == fitted[name].config
    assert again.hash == fitted[name].hash


def test_two_processes_fit_the_same_bit_for_bit(tmp_path):
    """One seed governs initial weights, order, dropout, masks and samples."""
    dropout = CoordinatedDropout(rate=0.3)
    data = tiny_data(coordinated_dropout=dropout, speckled_fraction=0.2)
    for name, model in SMALL.items():
        plain = {"data": data, "model": model, "learner": learner(name), "seed": 5}
        plain = {key: to_config(value) for key, value in plain.items()}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(plain))
    fits = "; ".join(
        f"assert main(['fit', '--config', '{name}.yaml', '--run_dir', folder + '/{name}']) == 0"
        for name in SMALL
    )
    root = str(Path(__file__).resolve().parents[1])
    imports = "from seqvae.console.main import main"
    for folder in ("a", "b"):
        subprocess.run(
            [
                sys.executable,
                "-c",
                f"{imports}; folder = '{folder}'; {fits}",
            ],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
        )
    for name in SMALL:
        assert_equal(tmp_path / "a" / name, tmp_path / "b" / name)
    again = fit(from_run=str(tmp_path / "a" / "VAE"), run_dir=str(tmp_path / "c"))
    assert_equal(tmp_path / "a" / "VAE", again.folder)


@pytest.mark.parametrize("name", ["VAE", "LinearDynamics"])
def test_a_run_that_was_resumed_is_repeated_as_if_it_had_not_been(fitted, tmp_path, name):
    given = (tiny_data(), SMALL[name])
    setting = "max_epochs" if name == "VAE" else "max_iterations"
    shorter = tiny_learner(1) if name == "VAE" else EM(max_iterations=2, progress=False)
    fit(*given, shorter, run_dir=str(tmp_path / "a"), seed=3)
    resumed = fit(*given, learner(name), run_dir=str(tmp_path / "a"), seed=3, resume=True)
    (note,) = resumed.provenance["resumed"]
    assert [change.split(" ")[0].rpartition(".")[2] for change in note["changed"]] == [setting]
    again = fit(from_run=resumed, run_dir=str(tmp_path / "b"))
    assert_equal(resumed.folder, again.folder)
    assert_equal(fitted[name].folder, again.folder)


def test_a_copy_of_provenance_alone_does(fitted, tmp_path):
    where = edited(fitted["LinearDynamics"], tmp_path / "mail", lambda content: None)
    again = fit(from_run=where, run_dir=str(tmp_path / "b"))
    assert_equal(fitted["LinearDynamics"].folder, again.folder)


def test_command_line_repeats_a_run_and_flags_override_it(run, tmp_path):
    assert main(["fit", "--from_run", str(run.folder), "--run_dir", str(tmp_path / "b")]) == 0
    assert_equal(run.folder, tmp_path / "b")
    flags = ["--learner.trainer.max_epochs", "1", "--seed", "4", "--data.batch_size", "4"]
    other = ["fit", "--from_run", str(run.folder), "--run_dir", str(tmp_path / "c"), *flags]
    assert main(other) == 0
    config = Run(tmp_path / "c").config
    assert config["seed"] == 4
    assert config["data"]["init_args"]["batch_size"] == 4
    assert config["learner"]["init_args"]["trainer"]["init_args"]["max_epochs"] == 1
    assert config["model"] == run.config["model"]


def test_printed_config_of_a_repetition_is_whole_and_knows_no_run(run, tmp_path, capsys):
    capsys.readouterr()
    assert main(["fit", "--from_run", str(run.folder), "--seed", "4", "--print_config"]) == 0
    tree = yaml.safe_load(capsys.readouterr().out)
    assert {name: tree[name] for name in ("data", "model", "learner")} == {
        name: run.config[name] for name in ("data", "model", "learner")
    }
    assert (tree["seed"], tree["from_run"]) == (4, None)


def test_what_is_given_beside_the_run_takes_the_place_of_its_own(run, tmp_path):
    folder = str(tmp_path / "b")
    again = fit(tiny_data(), None, tiny_learner(1), from_run=run, seed=4, run_dir=folder)
    assert again.config["seed"] == 4
    assert again.config["learner"]["init_args"]["trainer"]["init_args"]["max_epochs"] == 1
    assert again.config["model"] == run.config["model"]


def test_seed_of_the_callers_data_is_left_alone(tmp_path):
    data = tiny_data(seed=7)
    run = fit(data, SMALL["VAE"], tiny_learner(1), run_dir=str(tmp_path / "a"), seed=2)
    assert data.seed == 7
    assert run.config["data"]["init_args"]["seed"] == 2


# --- arrays in memory ----------------------------------------------------------------------------


def test_arrays_in_memory_must_be_given_again(tmp_path):
    run = fit(in_memory(), SMALL["VAE"], tiny_learner(1), run_dir=str(tmp_path / "a"))
    with pytest.raises(InputError, match="was fitted to arrays in memory; give the data again"):
        fit(from_run=str(run.folder), run_dir=str(tmp_path / "b"))
    assert not (tmp_path / "b").exists()
    again = fit(in_memory(), from_run=str(run.folder), run_dir=str(tmp_path / "b"))
    assert_equal(run.folder, again.folder)
    remembered = fit(from_run=run, run_dir=str(tmp_path / "c"))
    assert_equal(run.folder, remembered.folder)


def test_other_arrays_are_told(tmp_path):
    run = fit(in_memory(), SMALL["VAE"], tiny_learner(1), run_dir=str(tmp_path / "a"))
    other = in_memory(replace(LORENZ, seed=1).load())
    with pytest.warns(UserWarning, match="not the arrays that .* so this is no repetition"):
        fit(other, from_run=run, run_dir=str(tmp_path / "b"))


# --- what is refused, and what is told -----------------------------------------------------------


def test_data_that_changed_are_refused_unless_others_are_meant(tmp_path):
    path = tmp_path / "data.h5"
    write_hdf5(LORENZ.load(), path)
    data = NeuralData(HDF5(str(path)), batch_size=8)
    run = fit(data, SMALL["VAE"], tiny_learner(1), run_dir=str(tmp_path / "a"))
    write_hdf5(replace(LORENZ, seed=1).load(), path)
    with pytest.raises(InputError, match=r"is not what .* was fitted to .its checksum changed"):
        fit(from_run=str(run.folder), run_dir=str(tmp_path / "b"))
    assert not (tmp_path / "b").exists()
    path.rename(tmp_path / "moved.h5")
    with pytest.raises(InputError, match="was fitted in"):
        fit(from_run=str(run.folder), run_dir=str(tmp_path / "b"))
    argv = ["fit", "--from_run", str(run.folder), "--run_dir", str(tmp_path / "b")]
    assert main([*argv, "--data.source.path", str(tmp_path / "moved.h5")]) == 0
    assert Run(tmp_path / "b").config["data"]["init_args"]["batch_size"] == 8


def test_neither_data_nor_run_is_refused():
    with pytest.raises(InputError, match="data is required: give it, or from_run, a run to repeat"):
        fit(model=SMALL["VAE"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(threads=64), "threads was 64 and is now 1"),
        (lambda c: c["versions"].update(torch="1.0"), "torch was '1.0' and is now"),
        (lambda c: c.update(device="abacus"), "device was 'abacus'"),
        (
            lambda c: c["resumed"].append({"changed": ["learner.ridge was 1 and is now 2"]}),
            "learner.ridge was 1 and is now 2, when it was resumed",
        ),
    ],
)
def test_what_may_move_the_last_digits_is_told_in_one_sentence(run, tmp_path, change, words):
    apart = Recipe.read(edited(run, tmp_path / "a", change)).apart()
    assert "numbers may differ, if only in the last digits" in apart
    assert words in apart


def test_same_machine_has_nothing_to_tell(run, tmp_path):
    assert Recipe.read(run.folder).apart() is None
    longer = {"changed": ["learner.trainer.init_args.max_epochs was 1 and is now 3"]}
    where = edited(run, tmp_path / "a", lambda c: c["resumed"].append(longer))
    assert Recipe.read(where).apart() is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("config"), "tells no config; give the run's config.yaml"),
        (lambda c: c["config"].pop("learner"), "tells no config"),
        (lambda c: c["config"].update(seed="x"), "seed must be int"),
        (lambda c: c["config"].update(data=3), "data must hold class_path and init_args"),
        (lambda c: c.pop("data"), "is damaged"),
        (lambda c: c["config"]["model"].update(class_path="os.system"), "no class of seqvae"),
    ],
)
def test_damaged_provenance_is_refused_in_one_sentence(run, tmp_path, change, words):
    where = edited(run, tmp_path / "a", change)
    with pytest.raises(InputError, match=words):
        fit(from_run=where, run_dir=str(tmp_path / "b"))
    assert not (tmp_path / "b").exists()


def test_missing_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"from_run: .* does not exist"):
        fit(from_run=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="does not exist"):
        fit(from_run=str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"logger": {"class_path": "pytorch_lightning.loggers.CSVLogger",
                        "init_args": {"save_dir": "elsewhere"}}},
            "names 'pytorch_lightning.loggers.CSVLogger'",
        ),
        (
            {"callbacks": [{"class_path": "pytorch_lightning.callbacks.ModelCheckpoint",
                            "init_args": {"dirpath": "elsewhere"}}]},
            "names 'pytorch_lightning.callbacks.ModelCheckpoint'",
        ),
        ({"default_root_dir": "elsewhere"}, "sets default_root_dir"),
    ],
)  # fmt: skip
def test_trainer_of_a_stranger_writes_nowhere_unless_trusted(run, tmp_path, settings, words):
    def spoil(content):
        content["config"] = copy.deepcopy(content["config"])
        content["config"]["learner"]["init_args"]["trainer"]["init_args"].update(settings)

    where = edited(run, tmp_path / "a", spoil)
    for call in (
        lambda: fit(from_run=where, run_dir=str(tmp_path / "b")),
        lambda: Recipe.read(where),
    ):
        with pytest.raises(InputError, match=words):
            call()
    argv = ["fit", "--from_run", where, "--run_dir", str(tmp_path / "b")]
    assert main([*argv, "--learner.trainer.max_epochs", "1"]) == 2
    assert not (tmp_path / "b").exists()
    assert Recipe.read(where, trust=True).config["learner"]


def test_provenance_tells_what_numbers_depend_on(run):
    told = run.provenance
    assert told["threads"] == torch.get_num_threads()
    assert told["cpu"] == torch.backends.cpu.get_cpu_capability()
    assert {"torch", "numpy", "scipy", "scikit-learn", "pytorch_lightning"} <= set(told["versions"])
    assert told["config"] == run.config
    assert {"num_devices", "matmul_precision", "deterministic", "folder"} <= set(told)
    assert np.isfinite(told["data"]["null_rates"]).all()
