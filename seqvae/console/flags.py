"""From the words of a command to the arguments of a verb: flags, YAML files, runs to repeat."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from seqvae.console.patterns import with_sessions
from seqvae.errors import InputError, nearest
from seqvae.storage import yaml_json as documents

SEVERAL = ("runs",)
"""Flags that several words may follow, one for each value."""
REPEATED = ("run",)
"""Flags whose values are a list where they are given more than once."""


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
            raise InputError(_no_flag(word))
        former = flags.get(key) if key in REPEATED else None
        if equals:
            flags[key] = _parse(key, value)
        elif key in SEVERAL and words and not words[0].startswith(("--", "[")):
            num_values = next((i for i, w in enumerate(words) if w.startswith("--")), len(words))
            flags[key], words = words[:num_values], words[num_values:]
        elif words and not words[0].startswith("--") and key not in ("help", "print_config"):
            flags[key] = _parse(key, words.pop(0))
        elif key in ("config", "run", "runs", "run_dir", "out"):
            raise InputError(f"--{key} needs a value")
        else:
            flags[key] = True
        if former is not None:
            flags[key] = [*(former if isinstance(former, list) else [former]), flags[key]]
    return flags


def with_file(argv: Sequence[str], arguments: Collection[str] = ()) -> list[str]:
    """Give a file that stands first its flag: that of the data, or of a config if it is YAML.

    A second one is ``--out``, of a verb with that among its ``arguments``; else several files are
    those of several sessions, as a shell makes them of a pattern.
    """
    words = list(argv)
    suffix = Path(words[0]).suffix.lower() if words and not words[0].startswith("-") else ""
    if not suffix:
        return words
    if "out" in arguments and len(words) > 1 and not words[1].startswith("-"):
        words.insert(1, "--out")
    if suffix in (".yaml", ".yml"):
        return ["--config", *words]
    files = list(takewhile(lambda word: not word.startswith("-"), words))
    named = words[0] if len(files) == 1 else json.dumps(files)
    return ["--data.source.path", named, *words[len(files) :]]


def with_run(argv: Sequence[str], arguments: Collection[str]) -> list[str]:
    """Give runs that stand first their flag."""
    words = list(argv)
    named = list(takewhile(lambda word: not word.startswith("-"), words))
    if "runs" in arguments:
        return ["--runs", *words] if named else words
    return [part for word in named for part in ("--run", word)] + words[len(named) :]


def _no_flag(word: str) -> str:
    """Say what a word is that is neither a flag nor its value."""
    if Path(word).is_dir():
        pattern = f"{word.rstrip('/')}/*.h5"
        return f"{word!r} is a folder; give a file, or a pattern such as {pattern!r}"
    if Path(word).is_file():
        return f"{word!r} has no ending that tells its kind, such as .h5; give it one, or its flag"
    return f"{word!r} is no flag; write --key value"


def _parse(key: str, text: str) -> Any:
    """Read a list or mapping; the type of anything else is known later."""
    if not text.startswith(("{", "[")):
        return text
    try:
        return documents.parse_yaml(text, f"--{key}")
    except InputError as error:
        raise InputError(f"--{key}: {text!r} is no list or mapping") from error


def is_set(flag: object) -> bool:
    """Whether a flag that needs no value is on."""
    return str(flag).lower() not in ("false", "no", "0")


def read_config(path: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        InputError: naming file, line and column.
    """
    try:
        tree = documents.read_yaml(path, f"config: {path}")
    except OSError as error:
        raise InputError(f"config: cannot read {path!r}: {error.strerror}") from error
    if not isinstance(tree, dict):
        raise InputError(f"config: {path} must hold keys such as data and model, got {tree!r}")
    return {str(key): value for key, value in tree.items()}


def run_config(run: Any) -> dict[str, Any]:
    """Read the config of a run folder, of several that of the first.

    Raises:
        InputError: if it has none, or for what ``read_yaml`` refuses.
    """
    run = str(run[0] if isinstance(run, list) and run else run)
    path = Path(run) / "config.yaml"
    if not path.is_file():
        if not Path(run).is_dir():
            what = "is a file" if Path(run).exists() else "does not exist"
            raise InputError(f"run: {run!r} {what}; give the folder that a fit has made")
        raise InputError(f"run: {run!r} is no run folder, it has no config.yaml")
    return read_config(str(path))


def repeated_config(run: str, trust: bool) -> dict[str, Any]:
    """Read the config of a run that is to be repeated."""
    from seqvae.runs import Recipe

    return Recipe.read(run, trust=trust).config


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
    flags = with_sessions(flags, partial(read_command, function, tree, trust=trust))
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
    from seqvae.config.class_paths import class_path, find_class
    from seqvae.config.signatures import parameters, parts
    from seqvae.data.sources import Images, RecordingSource, from_path

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


def with_model(tree: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Name the model whose settings are given where none is named: what is learned by default."""
    keys = [key for key in flags if key.split(".")[0] == "model"]
    if not keys or {"model", "model.class_path"} & set(keys) or tree.get("model") is not None:
        return dict(tree)
    from seqvae.config.class_paths import class_path
    from seqvae.models import NonlinearDynamics

    return {**tree, "model": {"class_path": class_path(NonlinearDynamics)}}


class Unnamed(NamedTuple):
    """A tree whose learners have a class, and keys of those that had none.

    Attributes:
        tree: of the arguments.
        keys: dotted, of learners that say only in what they differ from the default's.
    """

    tree: dict[str, Any]
    keys: tuple[str, ...] = ()


def with_learner(
    tree: Mapping[str, Any], flags: Mapping[str, Any], trust: bool, run: Any = None
) -> Unnamed:
    """Name the class of the learner, unless it is named: the one that learns the model.

    Where a run is given, flags change how that one was learned; where a model is learned by what
    suits the data, settings of a learner that is not named change that.
    """
    settings = tree.get("learner") or {}
    is_named = not isinstance(settings, Mapping) or "class_path" in settings
    if is_named or {"learner", "learner.class_path"} & set(flags):
        return Unnamed(dict(tree))
    from seqvae.config import open_parameters
    from seqvae.config.class_paths import class_path
    from seqvae.learning import GradientLearner, default_learner, follows_rule
    from seqvae.runs import ModelFactory, Run

    model = flags.get("model", flags.get("model.class_path", tree.get("model")))
    says_nothing = not settings and not any(key.startswith("learner.") for key in flags)
    if model is None and says_nothing:
        return Unnamed(dict(tree))  # the default model brings its own
    if run is not None and not settings:
        return Unnamed({**tree, "learner": Run(str(run)).config["learner"]})
    opened = open_parameters(model, ModelFactory, key="model", trust=trust)
    suits = model is None or (opened is not None and follows_rule(opened.cls))
    if says_nothing and suits:
        return Unnamed(dict(tree))  # it follows from the data
    learner = default_learner(opened.cls) if opened else GradientLearner
    told = dict(settings)
    if suits and any(key.startswith("learner.trainer.") for key in flags):
        told.setdefault("trainer", {})  # says nothing; its own default would say a lot
    named = {**tree, "learner": {"class_path": class_path(learner), "init_args": told}}
    return Unnamed(named, ("learner",) if suits else ())


def with_learners(tree: Mapping[str, Any], flags: Mapping[str, Any], trust: bool) -> Unnamed:
    """Name the class of each learner that settings are given for, as ``with_learner`` does."""
    settings, models = tree.get("learners") or {}, flags.get("models", tree.get("models")) or {}
    if not (isinstance(settings, Mapping) and isinstance(models, Mapping)):
        return Unnamed(dict(tree))
    words = [key.split(".") for key in flags if key.startswith("learners.")]
    learners, keys = dict(settings), []
    names = {*models, *(key.split(".")[1] for key in flags if key.startswith("models."))}
    for name in sorted({*settings, *(parts[1] for parts in words)} - names) if names else ():
        raise InputError(f"learners.{name} is no model{nearest(name, names)}")
    for name in {*settings, *(parts[1] for parts in words)}:
        here = {"model": f"models.{name}", "learner": f"learners.{name}"}
        model_flags = {
            key.replace(long, short, 1): value
            for short, long in here.items()
            for key, value in flags.items()
            if key == long or key.startswith(f"{long}.")
        }
        sections = {"model": models.get(name), "learner": settings.get(name)}
        one = with_learner(sections, model_flags, trust)
        keys += [f"learners.{name}"] * len(one.keys)
        if (learner := one.tree.get("learner")) is not None:
            learners[name] = learner
    return Unnamed({**tree, "learners": learners} if learners else dict(tree), tuple(keys))


def build(
    function: Callable[..., Any],
    tree: Mapping[str, Any],
    *,
    trust: bool,
    unnamed: Collection[str] = (),
) -> dict[str, Any]:
    """Build the arguments of a verb from a config tree.

    Args:
        function: the verb.
        tree: the arguments that are given.
        trust: allow classes from anywhere.
        unnamed: keys of learners of which factories are built.

    Raises:
        InputError: for one that is absent, naming the flag, or wrong.
    """
    from seqvae.config import from_config, read_arguments
    from seqvae.config.signatures import REQUIRED, parameters
    from seqvae.learning import LearnerFactory

    accepted = parameters(function)
    required = {name for name, parameter in accepted.items() if parameter.default is REQUIRED}
    if "from_run" in accepted and tree.get("from_run") is None:
        required.add("data")
    cures = {
        "data": "--data.source.path FILE or --config FILE",
        "dims": '--dims "[1, 2, 4, 8]"',
        "out": "--out FILE.h5",
        "run": "--run FOLDER",
        "runs": "--runs FOLDER FOLDER ...",
    }
    absent = required - {name for name, value in tree.items() if value is not None}
    for name in sorted(cures.keys() & absent):
        if tree.keys() <= accepted.keys():  # else the name may be there, but misspelt
            raise InputError(f"{name} is required: give {cures[name]}")
    arguments = read_arguments(function, tree, trust=trust)
    for key in unnamed:
        holder, _, name = key.rpartition(".")
        sections, built = (tree[holder], arguments[holder]) if holder else (tree, arguments)
        built[name] = from_config(sections[name], LearnerFactory, key=key, trust=trust)
    return arguments
