"""The command line: the verbs of ``seqvae.workflow``, their arguments as dotted flags or YAML.

    seqvae VERB [--config FILE] [--key value | --key=value ...]

A flag is the dotted key of a value in the YAML file without its ``init_args``. Exit codes: 0 done,
2 the user can mend it (one sentence on stderr), 1 a defect of ours (traceback), 130 interrupted,
143 terminated.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from seqvae.errors import InputError, nearest

VERBS = {
    "fit": "learn a model from data; leaves a run folder with weights, scores and figures",
    "infer": "infer rates, factors and latents with a learned model; writes posterior.nc",
    "evaluate": "score a learned model beside the baselines; prints a table",
    "audit": "compare a model's posterior with one that is sampled; prints a table, draws it",
    "crossvalidate": "find how many latent dimensions the data support, and with which model",
    "check": "validate a recording and tell what is in it",
}
HELP = """usage: seqvae VERB [--config FILE] [--key value ...]

Sequential variational autoencoders for neural time series.

verbs:
{verbs}

example:
  seqvae fit --config configs/lorenz_svae.yaml --run_dir runs/lorenz
  seqvae evaluate --run runs/lorenz
  seqvae infer --run runs/lorenz --out posterior.nc

'seqvae VERB --help' tells the arguments of a verb; 'seqvae fit ... --print_config' prints every
setting of a run as YAML that --config reads; 'seqvae --version' tells the version.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    verb, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if verb in ("-h", "--help"):
        print(HELP.format(verbs="\n".join(f"  {v:<15}{text}" for v, text in VERBS.items())))
        return 0
    if verb == "--version":
        from importlib.metadata import version

        print(f"seqvae {version('seqvae')}")
        return 0
    if verb not in VERBS:
        print(f"seqvae: there is no verb {verb!r}{nearest(verb, VERBS)}", file=sys.stderr)
        return 2
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: _tell(verb, f"warning: {message}")
        try:
            _command(verb, rest)
        except KeyboardInterrupt:
            return _interrupted(verb)
        except SystemExit as exit_:  # Lightning's answer to an interrupt
            if isinstance(exit_.__context__, KeyboardInterrupt):
                return _interrupted(verb)
            if exit_.code is None:  # and to a termination, which is no success
                _tell(verb, "terminated")
                return 143
            raise
        except Exception as error:
            if not _is_users(error):
                traceback.print_exc()
                return 1
            _tell(verb, str(error))
            return 2
    return 0


def _function(verb: str) -> Callable[..., Any]:
    if verb == "crossvalidate":
        from seqvae.crossvalidation import crossvalidate

        return crossvalidate
    if verb == "audit":
        from seqvae.auditing import audit

        return audit
    from seqvae import workflow

    found: Callable[..., Any] = getattr(workflow, verb)
    return found


def _tell(verb: str, text: str) -> None:
    print(f"seqvae {verb}: {' '.join(text.split())}", file=sys.stderr)


def _interrupted(verb: str) -> int:
    _tell(verb, "interrupted")
    return 130


def _is_users(error: Exception) -> bool:
    """Whether the user can mend it."""
    if isinstance(error, InputError | PermissionError):
        return True
    lightning = sys.modules.get("pytorch_lightning.utilities.exceptions")
    return lightning is not None and isinstance(error, lightning.MisconfigurationException)


def _command(verb: str, argv: Sequence[str]) -> None:
    flags = read_flags(argv)
    # What needs no torch comes first, so that it is refused at once.
    takes_config = verb in ("fit", "crossvalidate", "check")
    tree = read_yaml(str(flags.pop("config"))) if takes_config and "config" in flags else {}
    trust = takes_config or _is_set(flags.get("trust", False))
    if "run" in flags and not takes_config:
        tree = _run_config(str(flags["run"]))
    wants_help = _is_set(flags.pop("help", False))
    wants_config = _is_set(flags.pop("print_config", False))

    from seqvae.terminal import config_text, help_text, report

    function = _function(verb)
    if verb not in ("fit", "crossvalidate"):
        # A run answers for its own data, unless the command says something about them.
        wanted = verb == "check" or any(key.split(".")[0] == "data" for key in flags)
        tree = {"data": tree["data"]} if wanted and "data" in tree else {}
    if trust and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a user's own parts, as with python -m
    if verb == "fit":
        tree = _with_learner(tree, flags, trust)
    if verb == "crossvalidate":
        tree = _with_learners(tree, flags, trust)
    tree = read_command(function, tree, flags, trust=trust)
    if wants_help:
        print(help_text(verb, function, tree, trust=trust), end="")
        return
    arguments = _build(function, tree, trust=trust)
    if wants_config:
        print(config_text(function, arguments), end="")
        return
    if verb == "infer" and arguments.get("out") is None:
        arguments["out"] = str(Path(str(flags["run"])) / "posterior.nc")
    report(verb, arguments, function(**arguments))


# --- reading -------------------------------------------------------------------------------------


def read_flags(argv: Sequence[str]) -> dict[str, Any]:
    """Return dotted key -> value; a flag without a value is True.

    Raises:
        InputError: for a word that is neither a flag nor its value.
    """
    flags: dict[str, Any] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if word == "-h":
            key = "help"
        elif not word.startswith("--") or not key:
            raise InputError(f"{word!r} is no flag; write --key value")
        if equals:
            flags[key] = _parse(key, value)
        elif words and not words[0].startswith("--") and key not in ("help", "print_config"):
            flags[key] = _parse(key, words.pop(0))
        elif key in ("config", "run", "run_dir", "out"):
            raise InputError(f"--{key} needs a value")
        else:
            flags[key] = True
    return flags


def _parse(key: str, text: str) -> Any:
    """Read a list or mapping; the type of anything else is known later."""
    if not text.startswith(("{", "[")):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--{key}: {text!r} is no list or mapping") from error


def _is_set(flag: object) -> bool:
    return str(flag).lower() not in ("false", "no", "0")


def read_yaml(path: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        InputError: naming file, line and column.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text file"
        raise InputError(f"config: cannot read {path!r}: {reason}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it is not YAML"
        raise InputError(f"config: {path}{place}: {problem}") from error
    if not isinstance(tree, dict):
        raise InputError(f"config: {path} must hold keys such as data and model, got {tree!r}")
    return {str(key): value for key, value in tree.items()}


def _run_config(run: str) -> dict[str, Any]:
    path = Path(run) / "config.yaml"
    if not path.is_file():
        raise InputError(f"run: {run!r} is no run folder, it has no config.yaml")
    return read_yaml(str(path))


def read_command(
    function: Callable[..., Any],
    tree: Mapping[str, Any],
    flags: Mapping[str, Any],
    *,
    trust: bool = False,
) -> dict[str, Any]:
    """Return the verb's arguments as a config tree: those of the file, then the flags.

    Raises:
        InputError: for a key that does not exist.
    """
    from seqvae.config import check_trusted, override

    if not trust:
        check_trusted(tree)
    tree = dict(tree)
    assignments = [*_source_of_path(tree, flags, trust), *flags.items()]
    # A class comes before its arguments, whatever their order on the command line.
    for assignment in sorted(assignments, key=lambda item: item[0].count(".")):
        tree = override(function, tree, assignment, trust=trust)
    return tree


def _source_of_path(
    tree: Mapping[str, Any], flags: Mapping[str, Any], trust: bool
) -> list[tuple[str, Any]]:
    """Choose the source by the suffix of ``--data.source.path``, unless one is chosen that fits."""
    path = flags.get("data.source.path")
    if path is None or {"data.source", "data.source.class_path"} & set(flags):
        return []
    from seqvae.classpaths import class_path, find_class
    from seqvae.data.sources import Images, RecordingSource, from_path
    from seqvae.signatures import parameters, parts

    data = tree.get("data")
    arguments = data.get("init_args") or data if isinstance(data, dict) else {}
    former = arguments.get("source")
    former = former.get("class_path") if isinstance(former, dict) else former
    takes_path = False
    if former is not None:
        former_class = find_class(former, parts(RecordingSource), "data.source", trust)
        takes_path = "path" in parameters(former_class)
        is_ours = former_class.__module__.startswith("seqvae.")
        if takes_path and (not is_ours or former_class is Images):  # reads files of any name
            return []
    chosen = class_path(type(from_path(str(path))))
    return [("data.source", chosen if takes_path else {"class_path": chosen})]


def _with_learner(tree: Mapping[str, Any], flags: Mapping[str, Any], trust: bool) -> dict[str, Any]:
    """Name the class of the learner, unless it is named: the one that learns the model."""
    given = tree.get("learner") or {}
    is_named = not isinstance(given, Mapping) or "class_path" in given
    if is_named or {"learner", "learner.class_path"} & set(flags):
        return dict(tree)
    from seqvae.classpaths import class_path
    from seqvae.config import open_parameters
    from seqvae.learning import GradientLearner, default_learner
    from seqvae.run import ModelFactory

    model = flags.get("model", flags.get("model.class_path", tree.get("model")))
    found = open_parameters(model, ModelFactory, key="model", trust=trust)
    learner = default_learner(found[0]) if found else GradientLearner
    return {**tree, "learner": {"class_path": class_path(learner), "init_args": dict(given)}}


def _with_learners(
    tree: Mapping[str, Any], flags: Mapping[str, Any], trust: bool
) -> dict[str, Any]:
    """Name the class of each learner that settings are given for, as ``_with_learner`` does."""
    given, models = tree.get("learners") or {}, tree.get("models") or {}
    if not (isinstance(given, Mapping) and isinstance(models, Mapping)):
        return dict(tree)
    words = [key.split(".") for key in flags if key.startswith("learners.")]
    learners = dict(given)
    for name in {*given, *(parts[1] for parts in words)}:
        here = {"model": f"models.{name}", "learner": f"learners.{name}"}
        own = {
            key.replace(long, short, 1): value
            for short, long in here.items()
            for key, value in flags.items()
            if key == long or key.startswith(f"{long}.")
        }
        sections = {"model": models.get(name), "learner": given.get(name)}
        learner = _with_learner(sections, own, trust).get("learner")
        if learner is not None:
            learners[name] = learner
    return {**tree, "learners": learners} if learners else dict(tree)


def _build(function: Callable[..., Any], tree: Mapping[str, Any], *, trust: bool) -> dict[str, Any]:
    from seqvae.config import read_arguments
    from seqvae.signatures import REQUIRED, parameters

    known = parameters(function)
    required = {name for name, parameter in known.items() if parameter.default is REQUIRED}
    cures = {
        "data": "--data.source.path FILE or --config FILE",
        "dims": '--dims "[1, 2, 4, 8]"',
        "run": "--run FOLDER",
    }
    for name in cures.keys() & required - tree.keys():
        if tree.keys() <= known.keys():  # else the name may be there, but misspelt
            raise InputError(f"{name} is required: give {cures[name]}")
    return read_arguments(function, tree, trust=trust)
