"""Files from a stranger run no code, reach no other file and take no memory beyond their size.

Every hostile file carries a canary, a command that would make a file. None may ever sing, and the
answer is one sentence, in Python and on the command line.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import resource
import shutil
import struct
import sys
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from pytorch_lightning import Trainer

from mutations import copy_run
from seqvae import GradientLearner, Run, evaluate, fit, infer
from seqvae.config.class_paths import check_trusted
from seqvae.console.main import main
from seqvae.data import NeuralData
from seqvae.data.sources import HDF5, Images, Lorenz, Npz, from_path
from seqvae.errors import InputError, one_line
from seqvae.storage.files import LOCK
from seqvae.storage.weights import FORMAT, load_plain
from seqvae.storage.yaml_json import MAX_YAML, parse_yaml, read_json, read_yaml
from tiny import SVAE, tiny_data

CANARY = "SEQVAE_CANARY"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trusted") / "run"
    learner = GradientLearner(partial(Trainer, max_epochs=1), figures_every=0, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(tiny_data(), SVAE, learner, run_dir=str(folder))
    return folder


@pytest.fixture
def stranger(run: Path, tmp_path: Path) -> Path:
    return copy_run(run, tmp_path / "stranger")


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The command of the canary stands in the environment; after the test it must not have run."""
    monkeypatch.delenv(CANARY, raising=False)
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "sang").exists()
    assert CANARY not in os.environ


class Code:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, ("touch sang",)


def refused(call: Callable[[], Any], seconds: float = 20.0, megabytes: float = 300.0) -> str:
    """Return the one sentence in which a call is refused, in bounded time and memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError) as told:
            call()
    sentence = str(told.value)
    assert sentence
    assert sentence.isprintable(), sentence
    assert len(sentence) < 2500
    assert time.monotonic() - began < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < megabytes * 1024
    return sentence


def refused_by_command(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """Return what the command line says, which must be one line and exit code 2."""
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if ": warning: " not in line]
    assert len(lines) == 1, err
    assert "Traceback" not in out + err
    assert lines[0].isprintable()
    return lines[0]


def edit_config(run: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    change(config)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return run


def edit_provenance(run: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    path = run / "provenance.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return run


# --- class paths in a run ------------------------------------------------------------------------

CLASS_PATHS = {
    "a function of the system": "os.system",
    "a process": "subprocess.Popen",
    "an evaluation": "builtins.eval",
    "an execution": "builtins.exec",
    "an import": "importlib.import_module",
    "a pickle": "pickle.loads",
    "a network": "urllib.request.urlopen",
    "a hub": "torch.hub.load",
    "a hub's weights": "torch.hub.load_state_dict_from_url",
    "a compiler": "torch.utils.cpp_extension.load",
    "an inline compiler": "torch.utils.cpp_extension.load_inline",
    "a loader": "torch.load",
    "a library": "torch.ops.load_library",
    "classes": "torch.classes.load_library",
    "a script": "torch.jit.load",
    "code": "types.FunctionType",
    "foreign code": "ctypes.CDLL",
    "a shell by wandb": "wandb.Api",
    "a user's module": "hostile_module.Evil",
    "a look-alike": "seqvae_evil.Model",
    "a look-alike of torch": "torch.optimizer.Evil",
    "a capital": "Seqvae.models.VAE",
    "another alphabet": "\u0455eqvae.models.VAE",
    "full-width letters": "\uff53eqvae.models.VAE",
    "a module of a trusted module": "seqvae.console.main.os",
    "a function of a trusted module": "seqvae.console.main.main",
    "a re-exported module": "torch.optim.lr_scheduler.os",
    "a re-exported class": "seqvae.runs.run.Path",
    "a re-exported class of torch": "torch.optim.optimizer.OrderedDict",
    "a re-exported function": "torch.optim.swa_utils.deepcopy",
    "Lightning's modules": "pytorch_lightning.utilities.rank_zero.os",
    "Lightning's sub-process launcher":
        "pytorch_lightning.strategies.launchers.subprocess_script._SubprocessScriptLauncher",
    "Lightning's command line": "pytorch_lightning.cli.LightningCLI",
    "Lightning's trainer as a model": "pytorch_lightning.Trainer",
    "a logger as a model": "pytorch_lightning.loggers.CSVLogger",
    "a verb": "seqvae.verbs.fit",
    "an empty part": "seqvae..os",
    "a leading dot": ".os.system",
    "a relative path": "seqvae.../os",
    "a slash": "seqvae/models.VAE",
    "dunder names": "seqvae.__builtins__.eval",
    "a dunder class": "seqvae.models.VAE.__class__",
    "an inner class": "seqvae.models.VAE.__init__.__globals__",
    "a main module": "seqvae.__main__.main",
    "a newline": "seqvae.models.VAE\nos.system",
    "a space": "seqvae.models. VAE",
    "a null": "seqvae.models.VAE\0",
    "nothing": "",
    "a number": 3,
    "a list": ["os.system"],
    "a mapping": {"class_path": "os.system"},
}  # fmt: skip


@pytest.mark.parametrize("path", CLASS_PATHS.values(), ids=CLASS_PATHS)
@pytest.mark.parametrize("place", ["model", "a part of the model", "source"])
def test_class_outside_the_trusted_packages_is_neither_imported_nor_built(
    path, place, stranger, capsys
):
    (Path.cwd() / "hostile_module.py").write_text("open('sang', 'w')\nclass Evil: pass\n")
    (Path.cwd() / "seqvae_evil.py").write_text("open('sang', 'w')\nclass Model: pass\n")
    bad = {"class_path": path, "init_args": {"cmd": "touch sang", "command": "touch sang"}}

    def change(config):
        if place == "model":
            config["model"] = bad
        elif place == "source":
            config["data"]["init_args"]["source"] = bad
        else:
            config["model"]["init_args"]["observation"] = bad

    edit_config(stranger, change)
    modules = set(sys.modules)
    refused(lambda: infer(str(stranger)))
    assert "hostile_module" not in set(sys.modules) - modules
    assert "seqvae_evil" not in set(sys.modules) - modules


@pytest.mark.parametrize("path", ["os.system", "hostile_module.Evil", "torch.hub.load"])
@pytest.mark.parametrize("verb", ["infer", "evaluate", "audit"])
def test_command_line_refuses_the_class_in_one_line(path, verb, stranger, capsys):
    (Path.cwd() / "hostile_module.py").write_text("open('sang', 'w')\nclass Evil: pass\n")
    edit_config(stranger, lambda config: config.update(model={"class_path": path}))
    said = refused_by_command(capsys, verb, "--run", stranger)
    assert "--trust" in said
    edit_config(stranger, lambda config: config["data"]["init_args"].update(source=path))
    refused_by_command(capsys, verb, "--run", stranger, "--data.val_fraction", "0.1")


@pytest.mark.parametrize("name", ["os", "Path", "eval", "system", "Popen", "Callable", "VAE()"])
def test_bare_name_reaches_members_of_the_family_only(name, stranger):
    edit_config(stranger, lambda config: config.update(model=name))
    assert "there is no class" in refused(lambda: Run(stranger).model())


def test_class_may_be_anywhere_with_trust_alone(stranger, monkeypatch):
    (Path.cwd() / "own_model.py").write_text(
        "from seqvae.models import SequentialVAE\nclass Own(SequentialVAE): pass\n"
    )
    monkeypatch.syspath_prepend(str(Path.cwd()))
    edit_config(stranger, lambda config: config["model"].update(class_path="own_model.Own"))
    assert "--trust" in refused(lambda: Run(stranger).model())
    assert type(Run(stranger).model(trust=True)).__name__ == "Own"


def test_learner_of_a_run_is_never_built_to_infer(stranger):
    hostile = {"class_path": "os.system", "init_args": {"command": "touch sang"}}
    edit_config(stranger, lambda config: config.update(learner=hostile))
    assert infer(str(stranger), num_samples=1).sizes["trial"] == 24


def test_trusted_paths_that_only_contain_untrusted_ones_are_found_deep_in_a_tree():
    tree: Any = {"class_path": "os.system"}
    for _ in range(20):
        tree = {"class_path": "seqvae.models.VAE", "init_args": {"a": [tree]}}
    assert "os.system" in refused(lambda: check_trusted(tree))


# --- values in a run -----------------------------------------------------------------------------


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe.h5")
    return tmp_path / "pipe.h5"


PATHS = ["/etc/passwd", "/dev/zero", "/dev/stdin", "/", "~/.ssh/id_rsa", "http://127.0.0.1:1/a.h5",
         "s3://bucket/a.h5", "file:///etc/passwd", "pipe.h5", "a\0b.h5", "a" * 5000, "\x1b[2J.h5",
         "", "."]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("source", ["HDF5", "Npz", "Images"])
def test_path_of_a_source_in_a_run_is_refused_without_waiting(path, source, stranger, pipe):
    tree = {"class_path": f"seqvae.data.sources.{source}", "init_args": {"path": path}}
    edit_config(stranger, lambda config: config["data"]["init_args"].update(source=tree))
    refused(lambda: infer(str(stranger)), seconds=5)


SIZES: dict[str, tuple[str, ...]] = {
    "factor_dim": ("model", "init_args", "factor_dim"),
    "generator_dim": ("model", "init_args", "generator_dim"),
    "controller_dim": ("model", "init_args", "controller_dim"),
    "trials": ("data", "init_args", "source", "init_args", "num_trials"),
    "bins": ("data", "init_args", "source", "init_args", "num_time_bins"),
    "neurons": ("data", "init_args", "source", "init_args", "num_neurons"),
    "speed": ("data", "init_args", "source", "init_args", "speed"),
}


@pytest.mark.parametrize("number", [10**6, 10**12, 10**30, -1])
@pytest.mark.parametrize("field", SIZES)
def test_size_in_a_run_takes_no_memory_beyond_its_weights(field, number, stranger):
    def change(config):
        *above, last = SIZES[field]
        for name in above:
            config = config[name]
        config[last] = number

    edit_config(stranger, change)
    refused(lambda: infer(str(stranger)), megabytes=500)


@pytest.mark.parametrize("number", [10**8, 10**12, -1, 1.5, None, "x"])
@pytest.mark.parametrize("fact", ["num_neurons", "num_inputs", "num_time_bins", "num_encoded_bins"])
def test_fact_in_a_provenance_takes_no_memory(fact, number, stranger):
    edit_provenance(stranger, lambda told: told["data"]["spec"].update({fact: number}))
    refused(lambda: infer(str(stranger)), megabytes=500)


@pytest.mark.parametrize(
    "value", [[0, 0], [99], [-1], list(range(10_000)), "all", [], [2**70], [[0]], {"0": 1}, None]
)
def test_heldin_neurons_of_a_provenance_must_be_neurons(value, stranger):
    edit_provenance(stranger, lambda told: told["data"]["spec"].update(heldin=value))
    refused(lambda: infer(str(stranger)))


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.clear(),
        lambda told: told.update(data=None),
        lambda told: told.update(data=[]),
        lambda told: told.update(versions="1"),
        lambda told: told["versions"].update(seqvae=None),
        lambda told: told["data"].update(spec=[1]),
        lambda told: told["data"].update(spec="seqvae.types.DataSpec"),
        lambda told: told["data"].update(num_trials={"train": 10**15}),
        lambda told: told["data"].update(num_trials={"train": "x"}),
        lambda told: told["data"].update(num_trials=[3]),
        lambda told: told["data"].update(checksum=None),
        lambda told: told["data"]["spec"].update(class_path="os.system"),
        lambda told: told["data"]["spec"].update(bin_width=-1),
    ],
)
def test_forged_provenance_is_refused(change, stranger, capsys):
    edit_provenance(stranger, change)
    refused(lambda: infer(str(stranger)))
    refused_by_command(capsys, "infer", "--run", stranger)


# --- YAML and JSON -------------------------------------------------------------------------------


def laughs(width: int = 9, depth: int = 12) -> str:
    lines = [f"a0: &a0 [{', '.join(['lol'] * width)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, depth)]
    return "\n".join(lines)


def merges(width: int = 9, depth: int = 12) -> str:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * width)}]}}" for i in range(1, depth)]
    return "\n".join(lines)


TEXTS = {
    "apply": "!!python/object/apply:os.system ['touch sang']",
    "apply in a value": "model: !!python/object/apply:os.system ['touch sang']",
    "apply in a key": "? !!python/object/apply:os.system ['touch sang']\n: 1",
    "new": "!!python/object/new:os.system ['touch sang']",
    "an object": "!!python/object:os.system {}",
    "a name": "!!python/name:os.system",
    "a module": "!!python/module:os",
    "a tuple": "!!python/tuple [1, 2]",
    "an unknown tag": "!evil [1]",
    "a tag by prefix": "%TAG !p! tag:yaml.org,2002:python/\n---\n!p!object/apply:os.system [ls]",
    "laughs": laughs(),
    "merged laughs": merges(),
    "an anchor in itself": "a: &a [*a]",
    "a mapping in itself": "&a {a: *a}",
    "deep lists": "[" * 3_000,
    "deep mappings": "{a: " * 3_000,
    "deep blocks": "- " * 100_000,
    "closed depth": "a: " + "[" * 70 + "]" * 70,
    "digits": "seed: " + "9" * 100_000,
    "hexadecimal digits": "seed: 0x" + "f" * 100_000,
    "base sixty": "seed: " + ":".join(["59"] * 20_000),
    "too large": "a: " + "b" * MAX_YAML,
    "no date": "a: 2026-99-99",
    "no truth": "a: !!bool maybe",
    "no number": "a: !!int x",
    "no time": "a: !!timestamp x",
    "a list as a key": "? [1]\n: 2",
    "twice the same key": "seed: 1\nseed: 2",
    "two documents": "a: 1\n---\nb: 2",
    "codes": "a: \x1b[2J",
    "a null": "a: \0",
    "half a pair": "a: '\\ud800",
    "no end": "a: 'b",
    "no text": b"\xff\xfe\x00\x01",
    "another version": "%YAML 3.0\n---\na: 1",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_hostile_yaml_is_refused_in_bounded_time(text, stranger, capsys):
    path = Path.cwd() / "hostile.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(lambda: read_yaml(path, "it"), seconds=15)
    (stranger / "config.yaml").write_bytes(path.read_bytes())
    refused_by_command(capsys, "fit", "--config", path)
    refused_by_command(capsys, "infer", "--run", stranger)


def test_anchors_of_a_user_are_read():
    text = "a: &a {lr: 0.1}\nb: *a\nc: {<<: *a, x: [1, 2]}"
    assert parse_yaml(text, "it") == {
        "a": {"lr": 0.1}, "b": {"lr": 0.1}, "c": {"lr": 0.1, "x": [1, 2]}
    }  # fmt: skip


JSONS = {
    "depth": "[" * 100_000,
    "deep mappings": '{"a":' * 100_000,
    "digits": '{"data": ' + "9" * 100_000 + "}",
    "nothing": "",
    "a number": "3",
    "no text": b"\xff\xfe",
    "half": '{"data": {',
    "not finite": '{"data": {"spec": NaN, "checksum": Infinity}}',
}


@pytest.mark.parametrize("text", JSONS.values(), ids=JSONS)
def test_hostile_json_is_refused(text, stranger, capsys):
    (stranger / "provenance.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(lambda: infer(str(stranger)))
    refused_by_command(capsys, "evaluate", "--run", stranger)
    refused_by_command(capsys, "fit", "--from_run", stranger, "--run_dir", "b")


@pytest.mark.parametrize("name", ["config.yaml", "provenance.json", "weights.pt"])
@pytest.mark.parametrize("what", ["/dev/zero", "/dev/stdin", "pipe.h5", "/", "nowhere"])
def test_link_to_a_device_in_a_run_is_refused_without_waiting(name, what, stranger, pipe):
    (stranger / name).unlink()
    (stranger / name).symlink_to(pipe if what == "pipe.h5" else what)
    refused(lambda: infer(str(stranger)), seconds=5)


def test_json_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("seqvae.storage.yaml_json.MAX_JSON", 1000)
    (tmp_path / "a.json").write_text(json.dumps(list(range(1000))))
    assert "larger than" in refused(lambda: read_json(tmp_path / "a.json", "it"))


# --- weights and checkpoints ---------------------------------------------------------------------


def rezipped(path: Path, *, compression: int = zipfile.ZIP_STORED, change: Any = None) -> None:
    """Write the parts of an archive again, changed or compressed."""
    with zipfile.ZipFile(path) as archive:
        parts = [(part.filename, archive.read(part)) for part in archive.infolist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in parts:
            archive.writestr(name, content if change is None else change(name, content))


def with_pickle(path: Path, text: bytes) -> None:
    """Save something harmless, then put another pickle in its place."""
    torch.save({"format": FORMAT}, path)
    rezipped(path, change=lambda name, old: text if name.endswith("data.pkl") else old)


def calling(module: str, name: str, argument: str = "touch sang") -> bytes:
    """A pickle that calls a function."""
    text = argument.encode()
    size = struct.pack("<I", len(text))
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"X" + size + text + b"\x85R."


def scripted(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


def swollen(path: Path) -> None:
    torch.save({"format": FORMAT, "state_dict": {"a": torch.zeros(20_000_000)}}, path)
    rezipped(path, compression=zipfile.ZIP_DEFLATED)


def expanded(path: Path) -> None:
    weight = torch.zeros(1).expand(10**6, 10**6)
    torch.save({"format": FORMAT, "state_dict": {"observation.readout.weight": weight}}, path)


def overlapping(path: Path) -> None:
    """Let the entries of the directory all lie in the same bytes."""
    torch.save({"format": FORMAT, "state_dict": {"a": torch.zeros(1000)}}, path)
    with zipfile.ZipFile(path, "a") as archive:
        first = next(part for part in archive.infolist() if part.filename.endswith("data/0"))
        for place in range(1, 5):
            twin = zipfile.ZipInfo(first.filename.replace("data/0", f"data/{place}"))
            for name in ("CRC", "compress_size", "file_size", "header_offset", "compress_type"):
                setattr(twin, name, getattr(first, name))
            archive.filelist.append(twin)
            archive.NameToInfo[twin.filename] = twin
        archive._didModify = True


def twice(path: Path) -> None:
    torch.save({"format": FORMAT}, path)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        archive.writestr(name, pickle.dumps(Code()))


def _saved(**arrays: np.ndarray) -> bytes:
    written = io.BytesIO()
    np.savez(written, **arrays)  # type: ignore[arg-type]
    return written.getvalue()


WEIGHTS: dict[str, Callable[[Path], Any]] = {
    "a pickled command": lambda p: p.write_bytes(pickle.dumps({"format": FORMAT, "x": Code()})),
    "a command saved by torch": lambda p: torch.save({"format": FORMAT, "x": Code()}, p),
    "a module": lambda p: torch.save(torch.nn.Linear(2, 2), p),
    "os.system": lambda p: with_pickle(p, calling("os", "system")),
    "posix.system": lambda p: with_pickle(p, calling("posix", "system")),
    "nt.system": lambda p: with_pickle(p, calling("nt", "system")),
    "subprocess": lambda p: with_pickle(p, calling("subprocess", "Popen")),
    "eval": lambda p: with_pickle(p, calling("builtins", "eval", "open('sang', 'w')")),
    "exec": lambda p: with_pickle(p, calling("builtins", "exec", "open('sang', 'w')")),
    "open": lambda p: with_pickle(p, calling("builtins", "open", "sang")),
    "getattr": lambda p: with_pickle(p, calling("builtins", "getattr")),
    "import": lambda p: with_pickle(p, calling("importlib", "import_module", "hostile")),
    "hub": lambda p: with_pickle(p, calling("torch.hub", "load")),
    "compiler": lambda p: with_pickle(p, calling("torch.utils.cpp_extension", "load")),
    "torch.load": lambda p: with_pickle(p, calling("torch", "load", "other.pt")),
    "torch.jit": lambda p: with_pickle(p, calling("torch.jit", "load", "other.pt")),
    "nested bytes": lambda p: with_pickle(p, calling("torch.storage", "_load_from_bytes")),
    "own class": lambda p: with_pickle(p, calling("seqvae.console.main", "main")),
    "Lightning": lambda p: with_pickle(p, calling("pytorch_lightning", "Trainer")),
    "numpy": lambda p: with_pickle(p, calling("numpy", "load", "other.npy")),
    "a device mesh": lambda p: with_pickle(
        p, calling("torch.distributed.device_mesh", "DeviceMesh")
    ),
    "a dotted name": lambda p: with_pickle(p, b"\x80\x04\x8c\x02os\x8c\x06system\x93."),
    "a huge array of bytes": lambda p: with_pickle(
        p, b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R."
    ),
    "endless memo": lambda p: with_pickle(p, b"\x80\x02" + b"(" * 100_000 + b"."),
    "nothing pickled": lambda p: with_pickle(p, b""),
    "a script": scripted,
    "deflated zeros": swollen,
    "an expanded weight": expanded,
    "overlapping parts": overlapping,
    "two of a name": twice,
    "a sparse weight": lambda p: torch.save(
        {"format": FORMAT, "state_dict": {"a": torch.eye(3).to_sparse()}}, p
    ),
    "a weight of nothing": lambda p: torch.save(
        {"format": FORMAT, "state_dict": {"a": torch.zeros(10**6, 10**6, device="meta")}}, p
    ),
    "text": lambda p: p.write_text("weights"),
    "an empty file": lambda p: p.write_bytes(b""),
    "an empty archive": lambda p: zipfile.ZipFile(p, "w").close(),
    "a hidden archive": lambda p: (
        torch.save({"format": FORMAT}, p),
        p.write_bytes(pickle.dumps(Code()) + p.read_bytes()),
    ),
    "an array": lambda p: p.write_bytes(_saved(a=np.array([Code()], dtype=object))),
}  # fmt: skip


@pytest.mark.parametrize("make", WEIGHTS.values(), ids=WEIGHTS)
def test_hostile_weights_run_nothing(make, stranger, capsys):
    make(stranger / "weights.pt")
    refused(lambda: infer(str(stranger)), megabytes=400)
    refused_by_command(capsys, "evaluate", "--run", stranger)


@pytest.mark.parametrize("make", WEIGHTS.values(), ids=WEIGHTS)
def test_hostile_checkpoint_is_no_more_resumed_than_read(make, stranger):
    make(stranger / "last.ckpt")
    learner = GradientLearner(partial(Trainer, max_epochs=2), progress=False)
    refused(
        lambda: fit(tiny_data(), SVAE, learner, run_dir=str(stranger), resume=True), megabytes=400
    )


def test_flipped_bit_in_a_weight_is_noticed(stranger):
    content = bytearray((stranger / "weights.pt").read_bytes())
    with zipfile.ZipFile(stranger / "weights.pt") as archive:
        part = max(archive.infolist(), key=lambda part: part.file_size)
    content[part.header_offset + 400] ^= 64
    (stranger / "weights.pt").write_bytes(content)
    assert "cannot be read" in refused(lambda: load_plain(stranger / "weights.pt"))


def test_safe_names_that_others_add_to_torch_are_not_safe_here(stranger, monkeypatch):
    torch.serialization.add_safe_globals([(os.system, "os.system")])
    try:
        with_pickle(stranger / "weights.pt", calling("os", "system"))
        assert "'os.system'" in refused(lambda: infer(str(stranger)))
    finally:
        torch.serialization.clear_safe_globals()


# --- npz -----------------------------------------------------------------------------------------

COUNTS = np.random.default_rng(0).poisson(1.0, (4, 5, 6)).astype(np.uint8)


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    written = io.BytesIO()
    told = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(written, told)
    return written.getvalue()


def zipped(path: Path, content: bytes, name: str = "activity.npy", how: int = 0) -> None:
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr(name, content)


NPZ: dict[str, Callable[[Path], Any]] = {
    "a pickled command": lambda p: np.savez(p, activity=np.array([Code()], dtype=object)),
    "a command in the ids": lambda p: np.savez(
        p, activity=COUNTS, trial_ids=np.array([Code()] * 4, dtype=object)
    ),
    "a command in a scalar": lambda p: np.savez(
        p, activity=COUNTS, bin_width=np.array(Code(), dtype=object)
    ),
    "a pickle instead of an array": lambda p: zipped(p, pickle.dumps(Code())),
    "objects in a structure": lambda p: np.savez(
        p, activity=np.array([(1, Code())], dtype=[("a", "i4"), ("b", "O")])
    ),
    "a claim of 4 TB": lambda p: zipped(p, header((10**4, 10**4, 10**4)) + bytes(100)),
    "a claim of 2 GB": lambda p: zipped(p, header((500, 1000, 1000)) + bytes(100)),
    "a claim of 40 MB": lambda p: zipped(p, header((100, 100, 1000)) + bytes(100)),
    "a claim beyond numbers": lambda p: zipped(p, header((2**62, 2**62, 4)) + bytes(100)),
    "long text": lambda p: zipped(p, header((1,), "<U500000000") + bytes(100), "trial_ids.npy"),
    "negative sizes": lambda p: zipped(p, header((-4, -5, 6)) + bytes(480)),
    "zeros by LZMA": lambda p: zipped(p, header((70, 1000, 1000), "|u1") + bytes(7 * 10**7),
                                      how=zipfile.ZIP_LZMA),
    "zeros by bzip2": lambda p: zipped(p, header((70, 1000, 1000), "|u1") + bytes(7 * 10**7),
                                       how=zipfile.ZIP_BZIP2),
    "code in a header": lambda p: zipped(
        p, b"\x93NUMPY\x01\x00\x40\x00" + b"__import__('os').system('touch sang')".ljust(64)
    ),
    "a long header": lambda p: zipped(
        p, b"\x93NUMPY\x02\x00" + struct.pack("<I", 10**6) + b"(" * 10**6
    ),
    "a path upwards": lambda p: zipped(p, header((4, 5, 6)), "../../activity.npy"),
    "dates": lambda p: np.savez(p, activity=np.zeros((4, 5, 6), "M8[s]")),
    "encrypted": lambda p: p.write_bytes(_encrypted(p)),
    "nothing": lambda p: zipfile.ZipFile(p, "w").close(),
}  # fmt: skip


def _encrypted(path: Path) -> bytes:
    np.savez(path, activity=COUNTS)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    content[6] |= 1
    return bytes(content)


# --- HDF5 ----------------------------------------------------------------------------------------


def hdf5(path: Path, fill: Callable[[h5py.File], Any]) -> None:
    with h5py.File(path, "w") as h:
        fill(h)


def _virtual(h: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 5, 6), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "activity", (4, 5, 6))
    h.create_virtual_dataset("activity", layout)


def _diamonds(h: h5py.File) -> None:
    group = h
    for i in range(40):
        below = h.create_group(f"g{i}")
        group["left"], group["right"] = below, below
        group = below


def _cycle(h: h5py.File) -> None:
    group = h.create_group("a")
    group["a"], group["b"] = group, h["/"]


def _deflated_twice(h: h5py.File) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((4, 5, 6))
    plan.set_deflate(9)
    plan.set_filter(h5py.h5z.FILTER_DEFLATE, 0, (9,))
    space = h5py.h5s.create_simple((4, 5, 6))
    made = h5py.h5d.create(h.id, b"activity", h5py.h5t.NATIVE_FLOAT, space, plan)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ones((4, 5, 6), "f4"))


def _with(name: str, **made: Any) -> Callable[[h5py.File], Any]:
    def fill(h: h5py.File) -> None:
        h["activity"] = COUNTS
        h.create_dataset(name, **made)

    return fill


def _references(h: h5py.File) -> None:
    h["activity"] = COUNTS
    h.create_dataset("trial_ids", data=[h["activity"].ref] * 4, dtype=h5py.ref_dtype)


def _attribute(name: str, value: Any) -> Callable[[h5py.File], Any]:
    def fill(h: h5py.File) -> None:
        h["activity"] = COUNTS
        h.attrs[name] = value

    return fill


H5: dict[str, Callable[[h5py.File], Any]] = {
    "a claim of 4 TB": lambda h: h.create_dataset("activity", (10**4,) * 3, "f4", chunks=True),
    "a claim of 2 GB": lambda h: h.create_dataset("activity", (500, 1000, 1000), "f4", chunks=True),
    "a value for all of 2 GB": lambda h: h.create_dataset(
        "activity", (500, 1000, 1000), "f4", chunks=(1, 1, 1), fillvalue=1.0
    ),
    "a chunk of 3 GB": lambda h: h.create_dataset(
        "activity", (4, 5, 6), "u1", chunks=(3000, 1000, 1000), maxshape=(None,) * 3
    ),
    "nothing written": lambda h: h.create_dataset("activity", (4, 5, 6), "f4"),
    "another file": lambda h: h.update({"activity": h5py.ExternalLink("secret.h5", "activity")}),
    "a device": lambda h: h.update({"activity": h5py.ExternalLink("/dev/zero", "activity")}),
    "another file's bytes": lambda h: h.create_dataset(
        "activity", (4, 5, 6), "u1", external=[("/etc/passwd", 0, 120)]
    ),
    "a virtual dataset": _virtual,
    "a soft link to nowhere": lambda h: h.update({"activity": h5py.SoftLink("/nowhere")}),
    "a soft link to itself": lambda h: h.update({"activity": h5py.SoftLink("/activity")}),
    "a soft link upwards": lambda h: h.update({"activity": h5py.SoftLink("../../etc/passwd")}),
    "a cycle of groups": _cycle,
    "paths without end": _diamonds,
    "deflated twice": _deflated_twice,
    "references": _references,
    "lists of numbers": _with("condition", shape=(4,), dtype=h5py.vlen_dtype("i4")),
    "opaque bytes": _with("condition", data=np.zeros(4, "V8")),
    "no UTF-8": _with("condition", data=[b"\xff"] * 4, dtype=h5py.string_dtype()),
    "a structure": _with("condition", data=np.zeros(4, [("a", "i4"), ("b", "f4")])),
    "long text": _with("condition", data=["a" * 10**6] * 300, dtype=h5py.string_dtype()),
    "a pickle as an attribute": _attribute("bin_width", np.void(pickle.dumps(Code()))),
    "a text as a number": _attribute("bin_width", "__import__('os').system('touch sang')"),
    "an empty attribute": _attribute("bin_width", h5py.Empty("f4")),
    "many names": lambda h: [h.create_group(f"group {i}") for i in range(4_001)],
    "text for activity": lambda h: h.update({"activity": np.array([b"touch sang"] * 4)}),
}


@pytest.mark.parametrize("fill", H5.values(), ids=H5)
def test_hostile_hdf5_is_refused(fill, tmp_path, capsys):
    hdf5(tmp_path / "secret.h5", lambda h: h.update({"activity": COUNTS}))
    path = tmp_path / "hostile.h5"
    hdf5(path, fill)
    refused(lambda: HDF5(path).load())
    refused_by_command(capsys, "check", "--data.source.path", path)


@pytest.mark.parametrize("name", ["a claim of 4 TB", "another file", "a virtual dataset"])
def test_hostile_hdf5_is_refused_as_pictures(name, tmp_path):
    hdf5(tmp_path / "secret.h5", lambda h: h.update({"activity": COUNTS}))
    hdf5(tmp_path / "hostile.h5", H5[name])
    refused(lambda: Images(tmp_path / "hostile.h5", keys={"images": "activity"}).load())


@pytest.mark.parametrize("make", NPZ.values(), ids=NPZ)
def test_hostile_npz_is_refused(make, tmp_path, capsys):
    path = tmp_path / "hostile.npz"
    make(path)
    refused(lambda: Npz(path).load())
    refused_by_command(capsys, "check", "--data.source.path", path)


# --- pictures ------------------------------------------------------------------------------------


def idx(shape: tuple[int, ...], content: bytes) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + content


IDX: dict[str, bytes] = {
    "a claim of 3 GB, deflated": gzip.compress(idx((3000, 1000, 1000), bytes(10**7))),
    "more than it says": gzip.compress(idx((2, 4, 4), bytes(10**8)), 1),
    "a claim of 4 GB": idx((4000, 1000, 1000), bytes(100)),
    "a claim beyond numbers": idx((2**32 - 1,) * 4, bytes(100)),
    "255 axes": bytes([0, 0, 8, 255]) + b"\0\0\0\1" * 255 + b"\0",
    "half a header": bytes([0, 0, 8, 3, 0, 0]),
    "a pickle": pickle.dumps(Code()),
    "half a gzip": gzip.compress(idx((2, 4, 4), bytes(32)))[:-12],
    "a wrong check sum": gzip.compress(idx((2, 4, 4), bytes(range(32))))[:-8] + bytes(8),
}


@pytest.mark.parametrize("content", IDX.values(), ids=IDX)
def test_hostile_pictures_are_refused(content, tmp_path, capsys):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    refused(lambda: from_path(path).load(), megabytes=100)
    refused_by_command(capsys, "check", "--data.source.path", path)


@pytest.mark.parametrize("labels", ["/etc/passwd", "../secret", "a/b", "..", "."])
def test_labels_of_pictures_lie_beside_them(labels, tmp_path):
    path = tmp_path / "images"
    path.write_bytes(idx((2, 4, 4), bytes(range(32))))
    refused(lambda: Images(path, keys={"labels": labels}).load())


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["{split.__class__}", "{split:>9999999999}", "{0}", "{x}", "{", "%s", "../x", "\x1b[2J"]
)
@pytest.mark.parametrize("field", ["activity", "condition", "bin_width"])
def test_key_is_a_name_and_no_format(name, field, tmp_path):
    np.savez(tmp_path / "a.npz", activity=COUNTS)
    refused(lambda: Npz(tmp_path / "a.npz", keys={field: name}).load())


def test_ids_and_conditions_never_become_names_of_files(run, tmp_path):
    before = {path for path in tmp_path.rglob("*")}
    recording = Lorenz(num_trials=24, num_val=8, num_time_bins=10, num_neurons=6, num_heldout=2)
    loaded = recording.load()
    np.savez(
        tmp_path / "a.npz",
        activity=loaded.activity,
        bin_width=loaded.bin_width,
        heldin=loaded.heldin,
        condition=np.array(["../../sang", "/sang", "sang\0", "\x1b[2J"] * 6),
        trial_ids=np.array([f"../../sang{i}" for i in range(24)]),
        neuron_ids=np.array([f"/sang{i}" for i in range(6)]),
    )
    found = infer(str(run), NeuralData(Npz(tmp_path / "a.npz")), num_samples=1, out="out.nc")
    assert found.trial.values[0] == "../../sang0"
    found.close()
    learner = GradientLearner(partial(Trainer, max_epochs=1), progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(NeuralData(Npz(tmp_path / "a.npz")), SVAE, learner, run_dir="fitted")
    made = {path for path in tmp_path.rglob("*")} - before
    inside = {tmp_path / name for name in ("a.npz", "out.nc", "fitted")}
    assert all(path in inside or tmp_path / "fitted" in path.parents for path in made)


def test_sentence_holds_no_codes_for_the_terminal():
    assert one_line("a\x1b[31mb\x07\r\n  c\u202ed\udcff") == "a\\x1b[31mb\\x07 c\\u202ed\\udcff"
    assert str(InputError("two\nlines \x1b")) == "two lines \\x1b"
    assert len(one_line("x" * 10**6)) < 2500


# --- folders -------------------------------------------------------------------------------------


def test_overwriting_a_run_removes_nothing_that_it_links_to(stranger, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("kept")
    for name in ("figures", "last.ckpt", "audit"):
        path = stranger / name
        if path.is_dir():
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
        path.unlink(missing_ok=True)
        path.symlink_to(tmp_path / "precious")
    learner = GradientLearner(partial(Trainer, max_epochs=1), progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(tiny_data(), SVAE, learner, run_dir=str(stranger), overwrite=True)
    assert [path.name for path in (tmp_path / "precious").iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("learner", "history"),
    [
        ("os.system", "/dev/zero"),
        (None, "pipe.h5"),
        ([1], "/"),
        ({"init_args": "x"}, "field"),
        ({"init_args": [1]}, "bytes"),
        ({"class_path": "os.system"}, "words"),
    ],
)
def test_evaluation_trusts_neither_history_nor_learner(learner, history, stranger, pipe):
    edit_config(stranger, lambda config: config.update(learner=learner))
    path = stranger / "history.csv"
    path.unlink()
    if history == "field":
        path.write_text("step," + "a" * 10**6 + "\n1,2\n")
    elif history == "bytes":
        path.write_bytes(b"\xff\xfe\n")
    elif history == "words":
        path.write_text("step,train/elbo\n__import__('os'),nan\n1,2,3,4\n")
    else:
        path.symlink_to(pipe if history == "pipe.h5" else history)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert "bits_per_spike" in evaluate(str(stranger), num_samples=1)


def test_lock_and_figures_of_a_run_lead_nowhere(stranger, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    learner = GradientLearner(partial(Trainer, max_epochs=2), progress=False)
    options = {"run_dir": str(stranger), "resume": True}
    (stranger / LOCK).symlink_to(precious)
    assert "link" in refused(lambda: fit(tiny_data(), SVAE, learner, **options))
    (stranger / LOCK).unlink()
    shutil.rmtree(stranger / "figures")
    (stranger / "figures").symlink_to(tmp_path)
    assert "link" in refused(lambda: fit(tiny_data(), SVAE, learner, **options))
    assert precious.read_text() == "kept"


def test_reading_a_hostile_array_takes_little_memory(tmp_path):
    path = tmp_path / "a.npz"
    zipped(path, header((500, 1000, 1000)) + bytes(100))
    tracemalloc.start()
    refused(lambda: Npz(path).load())
    assert tracemalloc.get_traced_memory()[1] < 10 * 10**6
    tracemalloc.stop()
