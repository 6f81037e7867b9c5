from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from pytorch_lightning.utilities.exceptions import SIGTERMException

from seqvae.console import main as cli
from seqvae.console import shipped_help
from seqvae.console.flags import read_flags, with_run
from seqvae.data import NeuralData
from seqvae.data.sources import HDF5, Lorenz, Npz, RecordingSource, write_hdf5, write_npz
from seqvae.errors import InputError
from seqvae.learning import GradientLearner
from seqvae.models import VAE, SequentialVAE
from seqvae.observations import NegativeBinomial
from seqvae.runs import ModelFactory
from seqvae.verbs.table import verbs

CONFIG = {
    "seed": 3,
    "data": {
        "source": {
            "class_path": "seqvae.data.sources.Lorenz",
            "init_args": {"num_trials": 12, "num_val": 4, "bin_width": 0.02},
        },
        "batch_size": 4,
    },
    "model": {"class_path": "seqvae.models.VAE", "init_args": {"latent_dim": 2}},
}


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return path


@pytest.fixture
def called(monkeypatch) -> dict[str, object]:
    """Replace the work of ``fit`` and ``check`` by a note of their arguments."""
    note: dict[str, object] = {}

    def fit(
        data: NeuralData,
        model: ModelFactory,
        learner: GradientLearner | None = None,
        *,
        seed: int = 0,
        run_dir: str | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        note.update(locals())

    def check(data: NeuralData) -> dict[str, object]:
        note.update(locals())
        return {"neurons": 3, "warnings": ["neuron 1 is silent"]}

    monkeypatch.setattr("seqvae.verbs.fit.fit", fit)
    monkeypatch.setattr("seqvae.verbs.check.check", check)
    monkeypatch.setattr("seqvae.verbs.fit.shown", lambda *_: "fitted")
    return note


def refused(capsys, *argv: str) -> str:
    """Return the sentence on stderr of a command that the user must mend."""
    assert cli.main(list(map(str, argv))) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "Traceback" not in err
    prefix = f"seqvae {argv[0]}: "
    assert err.startswith(prefix)
    return err[len(prefix) : -1]


def source_of(called) -> RecordingSource:
    data = called["data"]
    assert isinstance(data, NeuralData)
    return data.source


def test_config_and_flags_make_the_arguments_of_the_verb(config, called):
    flags = "--model.latent_dim 5 --learner.trainer.max_epochs=1 --run_dir 2020 --overwrite"
    assert cli.main(["fit", "--config", str(config), *flags.split()]) == 0
    assert called["model"].func is VAE
    assert called["model"].keywords["latent_dim"] == 5
    assert called["learner"].trainer.keywords["max_epochs"] == 1
    assert called["data"].batch_size == 4
    assert (called["seed"], called["run_dir"]) == (3, "2020")
    assert (called["resume"], called["overwrite"]) == (False, True)


def test_command_line_alone_suffices(called):
    flags = "--model.latent_dim 5 --model VAE --model.observation NegativeBinomial --seed 4"
    flags += " --data.source Lorenz --data.source.num_trials 60 --data.heldout [1,2]"
    flags += " --resume false"
    assert cli.main(["fit", *flags.split()]) == 0
    assert called["model"].keywords == {"latent_dim": 5, "observation": NegativeBinomial}
    assert source_of(called) == Lorenz(num_trials=60)
    assert called["data"].heldout == [1, 2]
    assert called["resume"] is False


def test_lists_of_parts_are_read_from_the_command_line(config, called):
    callbacks = "[{class_path: EarlyStopping, init_args: {monitor: val/elbo}}]"
    flags = ["--learner.trainer.callbacks", callbacks, "--learner.trainer.logger", "CSVLogger"]
    assert cli.main(["fit", "--config", str(config), *flags]) == 2
    flags += ["--learner.trainer.logger.save_dir", "logs"]
    assert cli.main(["fit", "--config", str(config), *flags]) == 0
    trainer = called["learner"].trainer.keywords
    assert trainer["callbacks"][0].monitor == "val/elbo"
    assert type(trainer["logger"]).__name__ == "CSVLogger"


def test_path_chooses_the_source_by_its_suffix(config, called):
    assert cli.main(["check", "--data.source.path", "a.npz"]) == 0
    assert source_of(called) == Npz("a.npz")
    assert cli.main(["check", "--config", str(config), "--data.source.path=a.h5"]) == 0
    assert source_of(called) == HDF5("a.h5")
    assert called["data"].batch_size == 4


def test_path_keeps_what_fits_of_a_former_file(tmp_path, called):
    tree = {"source": {"class_path": "HDF5", "init_args": {"path": "a.h5", "bin_width": 0.5}}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"data": tree}))
    flags = ["--config", str(tmp_path / "c.yaml"), "--data.source.path"]
    assert cli.main(["check", *flags, "b.h5"]) == 0
    assert source_of(called) == HDF5("b.h5", bin_width=0.5)
    assert cli.main(["check", *flags, "b.npz"]) == 0
    assert source_of(called) == Npz("b.npz", bin_width=0.5)


def test_printed_config_is_complete_and_read_again(config, tmp_path, called, capsys):
    assert (
        cli.main(["fit", "--config", str(config), "--learner.patience", "7", "--print_config"]) == 0
    )
    assert not called
    text = capsys.readouterr().out
    printed = yaml.safe_load(text)
    assert list(printed) == [
        "data", "model", "learner", "seed", "run_dir", "resume", "overwrite"
    ]  # fmt: skip
    assert printed["learner"]["init_args"]["patience"] == 7
    assert printed["data"]["init_args"]["source"]["init_args"]["mean_count"] == 0.25
    (tmp_path / "printed.yaml").write_text(text)
    assert cli.main(["fit", "--config", str(tmp_path / "printed.yaml"), "--print_config"]) == 0
    assert capsys.readouterr().out == text
    assert cli.main(["fit", "--config", str(tmp_path / "printed.yaml")]) == 0
    assert called["model"].keywords["latent_dim"] == 2


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--sed 1", "sed does not exist; did you mean 'seed'"),
        ("--run x", "run does not exist; did you mean 'run_dir'"),
        ("seed 1", "'seed' is no flag"),
        ("--seed", "seed must be int"),
        ("--seed x", "seed must be int or null, got 'x'"),
        ("--resume 3", "resume must be bool, got '3'"),
        ("--model.latent_dmi 3", "model.latent_dmi does not exist; did you mean 'latent_dim'"),
        ("--model.latent_dim x", "model.latent_dim must be int, got 'x'"),
        ("--model VEA", "model: there is no class 'VEA'; did you mean 'VAE'"),
        ("--model nowhere.VAE", "there is no module 'nowhere'; valid names: seqvae.models.VAE"),
        ("--model.observation StandardNormal", "no class 'StandardNormal'; valid names: Bernoulli"),
        (
            "--model.observation seqvae.priors.AR1",
            "must be a class of Observation, got 'seqvae.pri",
        ),
        ("--learner.trainer.max_epoch 3", "learner.trainer.max_epoch does not exist; did you mean"),
        ("--learner.trainer.callbacks [", "'[' is no list or mapping"),
        ("--data.source.path a.csv", "'.csv'"),
        ("--data.source.path", "'True' ends in ''"),
        ("--data.source.path nowhere.h5", "nowhere.h5"),
        ("--config nowhere.yaml", "cannot read 'nowhere.yaml'"),
        ("--config", "--config needs a value"),
        ("--seed -1", "seed must be from 0"),
        ('--model.latent_dim {"a":3}', "model.latent_dim must be int, got {'a': 3}"),
        ("--data.split_seed -1", "split_seed must be at least 0"),
    ],
)
def test_mistake_gets_one_sentence_and_writes_nothing(
    flags, sentence, config, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert sentence in refused(capsys, "fit", "--config", config, *flags.split())
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"modle": 3}, "modle does not exist; did you mean 'model'"),
        ({"model": {"class_path": "VAE", "init_args": {"latent_dmi": 3}}}, "model.latent_dmi does"),
        ({"model": {"class_path": "VAE", "init_arg": {}}}, "model.init_arg"),
        (
            {"data": {"source": {"class_path": "Lorenz", "init_args": {"sed": 1}}}},
            "data.source.sed",
        ),
        ({"data": 7}, "data must be a class of NeuralData or null, got 7"),
        ({"seed": "x"}, "seed must be int or null, got 'x'"),
        ({"model": {"class_path": "VAE", "init_args": {3: 4}}}, "model.3 does not exist"),
        ({"model": {"class_path": "VAE", "init_args": {"latent_dim": None}}}, "int, got None"),
    ],
)
def test_mistake_in_yaml_names_its_full_key(change, sentence, config, capsys):
    config.write_text(yaml.safe_dump({**CONFIG, **change}))
    assert sentence in refused(capsys, "fit", "--config", config)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("model: [1, 2", "line 1"),
        ("a: b: c", "line 1, column 5"),
        ("just words", "must hold keys"),
        ("", "must hold keys"),
    ],
)
def test_file_that_is_no_config(text, sentence, config, capsys):
    config.write_text(text)
    assert sentence in refused(capsys, "fit", "--config", config)


def test_missing_arguments_are_named(capsys):
    assert "give --data.source.path FILE" in refused(capsys, "fit")
    assert "run is required: give --run FOLDER" in refused(capsys, "infer")


def test_misspelt_section_is_told_before_a_missing_one(config, capsys):
    config.write_text(yaml.safe_dump({"dta": CONFIG["data"], "model": CONFIG["model"]}))
    assert "dta does not exist; did you mean 'data'" in refused(capsys, "fit", "--config", config)


def test_printed_config_shows_the_learner_that_nobody_named(capsys):
    argv = ["fit", "--model", "VAE", "--data.source", "Lorenz", "--print_config"]
    assert cli.main(argv) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["learner"]["init_args"]["patience"] == 100


def test_unknown_verb_names_the_nearest(capsys):
    assert cli.main(["fti"]) == 2
    assert capsys.readouterr().err == "seqvae: there is no verb 'fti'; did you mean 'fit'?\n"


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_lists_the_verbs(argv, capsys):
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {verb} " in out for verb in ("fit", "infer", "evaluate", "check"))


def test_help_of_a_verb_shows_the_arguments_of_the_chosen_classes(capsys):
    assert cli.main(["fit", "--model", "VAE", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--model.latent_dim  int [8]" in out
    assert "--data.batch_size  int [64]" in out
    assert "--model.spec" not in out
    assert "one of Arrays, Digits, HDF5, Images, LimitCycle, Lorenz, MAT, Npy, Npz, NWB," in out
    assert cli.main(["infer", "--help"]) == 0
    assert "--num_samples  int [50]" in capsys.readouterr().out


def test_help_shows_the_arguments_of_parts_of_parts_that_are_named(capsys):
    argv = [
        "fit",
        "--data.source",
        "Lorenz",
        "--model",
        "FLDS",
        "--model.encoder",
        "InformationMLP",
    ]
    assert cli.main([*argv, "--help"]) == 0
    out = capsys.readouterr().out
    assert "\ndata.source: Poisson counts with log-rates linear in the Lorenz system.\n" in out
    assert "--data.source.num_conditions  int or null [null]" in out
    assert "--model.encoder.window  int [3]" in out


def test_the_default_model_brings_its_own_learner_named_or_not():
    from seqvae.console.flags import with_learner, with_model

    default = "seqvae.models.NonlinearDynamics"
    assert with_model({}, {"model.dropout": "0.6"}) == {"model": {"class_path": default}}
    assert with_model({}, {"data.heldout": "0.2"}) == {}
    assert with_model({"model": {"class_path": "VAE"}}, {"model.dropout": "0.6"}) == {
        "model": {"class_path": "VAE"}
    }
    assert with_model({}, {"model": "VAE", "model.dropout": "0.6"}) == {}
    for tree, flags in (
        ({}, {"model": "NonlinearDynamics"}),
        ({"model": {"class_path": default}}, {"model.dropout": "0.6"}),
    ):
        assert with_learner(tree, flags, False) == (tree, ())  # its rule says how it is learned
    named = with_learner({}, {"model": "VAE"}, False)
    assert named.tree["learner"]["class_path"] == "seqvae.learning.GradientLearner"
    assert named.keys == ()


def test_a_setting_of_the_default_model_needs_no_name_of_it(capsys):
    assert cli.main(["fit", "--data.source", "Lorenz", "--model.latent_dimm", "3"]) == 2
    assert "did you mean 'latent_dim'" in capsys.readouterr().err


def test_whoever_reads_an_answer_may_have_read_enough(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    assert cli.main(["--help"]) == 0


def test_shipped_help_is_what_would_be_made():
    """Else: python -m seqvae.console.shipped_help."""
    pages = {page.stem: page.read_text(encoding="utf-8") for page in shipped_help.FOLDER.iterdir()}
    assert pages == {name: shipped_help.made_help(verb) for name, verb in verbs().items()}


def test_help_of_a_verb_needs_no_torch(monkeypatch, tmp_path, capsys):
    code = "import sys; from seqvae.console.main import main; main(['fit', '--help'])"
    told = subprocess.run(
        [sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told == shipped_help.shipped_help("fit")
    monkeypatch.setattr(shipped_help, "FOLDER", tmp_path)  # where no page is, it is made
    assert cli.main(["infer", "-h"]) == 0
    assert "--num_samples  int [50]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (InputError("bins: two\n lines"), 2, "seqvae check: bins: two lines\n"),
        (PermissionError(13, "Permission denied", "x"), 2, "seqvae check: [Errno 13]"),
        (KeyboardInterrupt(), 130, "seqvae check: interrupted\n"),
        (RuntimeError("a defect"), 1, "Traceback"),
    ],
)
def test_exit_code_tells_whose_turn_it_is(error, code, told, monkeypatch, capsys):
    def check(data: NeuralData) -> None:
        raise error

    monkeypatch.setattr("seqvae.verbs.check.check", check)
    assert cli.main(["check", "--data.source", "Lorenz"]) == code
    assert capsys.readouterr().err.startswith(told)


def test_interrupt_that_lightning_turns_into_exit_is_130(monkeypatch, capsys):
    def check(data: NeuralData) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemExit(1)  # noqa: B904 (as Lightning does)

    monkeypatch.setattr("seqvae.verbs.check.check", check)
    assert cli.main(["check", "--data.source", "Lorenz"]) == 130


def test_termination_is_no_success(monkeypatch, capsys):
    def check(data: NeuralData) -> None:
        raise SIGTERMException

    monkeypatch.setattr("seqvae.verbs.check.check", check)
    assert cli.main(["check", "--data.source", "Lorenz"]) == 143
    assert capsys.readouterr().err == "seqvae check: terminated\n"


def test_misconfigured_trainer_is_the_users(config, tmp_path, capsys):
    flags = ["--learner.trainer.devices", "0", "--learner.progress", "false"]
    told = refused(capsys, "fit", "--config", config, "--run_dir", tmp_path / "run", *flags)
    assert "devices" in told or "num_processes" in told
    assert not (tmp_path / "run").exists()


# --- a run from file to scores -------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    path, config = folder / "run", folder / "config.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    flags = ["--learner.trainer.max_epochs", "1", "--learner.progress", "false"]
    assert cli.main(["fit", "--config", str(config), "--run_dir", str(path), *flags]) == 0
    return path


def test_fit_tells_where_the_run_is(run, config, capsys, tmp_path):
    flags = ["--learner.trainer.max_epochs", "1", "--learner.progress", "false"]
    flags += ["--run_dir", str(tmp_path / "run")]
    assert cli.main(["fit", "--config", str(config), *flags]) == 0
    out = capsys.readouterr().out
    assert str(tmp_path / "run") in out
    assert "weights.pt" in out
    assert "already holds a run" in refused(capsys, "fit", "--config", config, *flags)


def test_evaluate_prints_the_baselines_beside_the_model(run, capsys, tmp_path):
    out = tmp_path / "metrics.json"
    assert cli.main(["evaluate", "--run", str(run), "--num_samples", "2", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (header,) = (line for line in lines if line.startswith(" "))
    assert header.split() == ["model", "mean_rate", "smoothing_glm", "true_rates"]
    assert any(line.startswith("co_bps ") for line in lines)
    assert "baselines" in json.loads(out.read_text())


def test_infer_writes_into_the_run_folder_unless_told_otherwise(run, capsys, tmp_path):
    assert cli.main(["infer", "--run", str(run), "--num_samples", "2"]) == 0
    assert str(run / "posterior.nc") in capsys.readouterr().out
    assert (run / "posterior.nc").exists()
    (run / "posterior.nc").unlink()
    out = str(tmp_path / "p.nc")
    assert cli.main(["infer", "--run", str(run), "--num_samples", "2", "--out", out]) == 0
    assert Path(out).exists()
    assert not (run / "posterior.nc").exists()


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_infer_on_another_file_keeps_the_other_settings_of_the_data(run, suffix, tmp_path, capsys):
    recording = Lorenz(num_trials=6, num_val=2, bin_width=0.02, seed=5).load()
    path = tmp_path / f"other{suffix}"
    (write_hdf5 if suffix == ".h5" else write_npz)(recording, path)
    flags = ["--data.source.path", str(path), "--num_samples", "2", "--out", str(tmp_path / "p.nc")]
    assert cli.main(["infer", "--run", str(run), *flags]) == 0
    assert "trial 6," in capsys.readouterr().out


def test_missing_run_is_refused(capsys, tmp_path):
    told = refused(capsys, "evaluate", "--run", tmp_path / "nowhere")
    assert "nowhere' does not exist; give the folder that a fit has made" in told


def test_run_that_names_a_foreign_class_is_refused_unless_trusted(run, tmp_path, capsys):
    tree = yaml.safe_load((run / "config.yaml").read_text())
    tree["data"]["init_args"]["source"] = {"class_path": "planted.Source"}
    hostile = tmp_path / "run"
    hostile.mkdir()
    (hostile / "config.yaml").write_text(yaml.safe_dump(tree))
    told = refused(capsys, "infer", "--run", hostile, "--data.batch_size", "3")
    assert "'planted.Source'" in told
    told = refused(capsys, "infer", "--run", hostile, "--data.batch_size", "3", "--trust")
    assert "no module 'planted'" in told


def test_part_in_a_file_of_the_user_is_named_by_one_line(config, tmp_path, monkeypatch, called):
    (tmp_path / "my_parts.py").write_text(
        "from seqvae.observations import Poisson\n\nclass Mine(Poisson):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [p for p in __import__("sys").path if p])
    assert cli.main(["fit", "--config", str(config), "--model.observation", "my_parts.Mine"]) == 0
    assert called["model"].keywords["observation"].__name__ == "Mine"


def test_check_tells_what_is_in_a_file(tmp_path, capsys):
    path = tmp_path / "a.h5"
    write_hdf5(Lorenz(num_trials=6, num_val=2).load(), path)
    assert cli.main(["check", "--data.source.path", str(path)]) == 0
    assert "neurons held out: 13" in capsys.readouterr().out


@pytest.mark.filterwarnings("default")
def test_warning_is_one_line_without_its_place_in_the_code(tmp_path, capsys):
    counts = np.ones((4, 5, 3))
    counts[:, :, 1] = 0
    np.savez(tmp_path / "silent.npz", activity=counts, bin_width=0.02)
    assert cli.main(["check", "--data.source.path", str(tmp_path / "silent.npz")]) == 0
    told = capsys.readouterr().err.splitlines()
    assert told
    assert all(line.startswith("seqvae check: warning: ") for line in told)


@pytest.mark.parametrize("model", [VAE, SequentialVAE])
def test_every_model_prints_a_config(model, capsys):
    flags = ["--model", model.__name__, "--data.source", "Lorenz", "--print_config"]
    assert cli.main(["fit", *flags]) == 0
    assert f"class_path: seqvae.models.{model.__name__}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words", "flags"),
    [
        (("run", "out"), ["runs/a", "--out", "b.nc"], {"run": "runs/a", "out": "b.nc"}),
        (("run",), ["a", "b", "--out", "c"], {"run": ["a", "b"], "out": "c"}),
        (("runs", "run_dir"), ["a", "b", "--run_dir", "c"], {"runs": ["a", "b"], "run_dir": "c"}),
        (("run",), ["--run", "a"], {"run": "a"}),
        (("run",), [], {}),
    ],
)
def test_runs_may_stand_first(arguments, words, flags):
    assert read_flags(with_run(words, arguments)) == flags
