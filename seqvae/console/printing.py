"""What the command line prints: the arguments of a verb, a config, and what a verb answered."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from seqvae.config import open_parameters, to_config
from seqvae.config.signatures import REQUIRED, Parameter, describe, parameters, read_leaf


def config_text(function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """Return every argument of a verb as YAML, defaults included."""
    values = {name: parameter.default for name, parameter in parameters(function).items()}
    values.update(arguments)
    tree = {name: to_config(value, key=name) for name, value in values.items()}
    return yaml.safe_dump(tree, sort_keys=False)


def help_text(
    verb: str, function: Callable[..., Any], tree: Mapping[str, Any], *, trust: bool = False
) -> str:
    """Return the arguments of a verb, with those of the classes that are chosen."""
    lines = [f"usage: seqvae {verb} [--key value ...]", "", _summary(function), ""]
    lines += _argument_lines(function, parameters(function), "")
    for name, parameter in parameters(function).items():
        if read_leaf("a folder", parameter.annotation)[0]:
            continue
        chosen = open_parameters(tree.get(name), parameter.annotation, key=name, trust=trust)
        if chosen is not None:
            cls, own = chosen
            lines += ["", f"{name}: {_summary(cls)}", *_argument_lines(cls, own, f"{name}.")]
    if verb == "fit":
        lines += ["", "Add --print_config to see every setting of a run, nested ones, too."]
    return "\n".join(lines) + "\n"


def _argument_lines(
    function: Callable[..., Any], own: Mapping[str, Parameter], prefix: str
) -> list[str]:
    said = _argument_docs(function)
    lines = []
    for name, parameter in own.items():
        default = "" if parameter.default is REQUIRED else f" [{_short(parameter.default)}]"
        lines.append(f"  --{prefix}{name}  {describe(parameter.annotation)}{default}")
        if name in said:
            lines += textwrap.wrap(
                said[name], 96, initial_indent=" " * 6, subsequent_indent=" " * 6
            )
    return lines


def _short(default: Any) -> str:
    cls = getattr(default, "func", default)
    if isinstance(cls, type):
        return cls.__name__
    is_plain = default is None or isinstance(default, bool | int | float | str | list | tuple)
    return json.dumps(default) if is_plain else type(default).__name__


def _summary(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")


def _argument_docs(function: Callable[..., Any]) -> dict[str, str]:
    """Read the Args (or Attributes) of a docstring."""
    text = inspect.getdoc(function) or ""
    entries = re.findall(r"^    (\w+): (.+?)(?=^    \w|^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    return {name: " ".join(told.split()) for name, told in entries}


def report(verb: str, arguments: Mapping[str, Any], result: Any) -> None:
    """Print what a verb answered."""
    if verb == "fit":
        print(f"run folder: {result.folder}")
        names = sorted(path.name for path in Path(result.folder).iterdir())
        print("  " + "  ".join(name for name in names if not name.startswith(".")))
    elif verb == "infer":
        print(f"posterior: {arguments['out']}")
        print("  " + ", ".join(f"{name} {size}" for name, size in result.sizes.items()))
        print("  " + ", ".join(map(str, result.data_vars)))
    elif verb == "evaluate":
        print(table(result))
        if arguments.get("out"):
            print(f"metrics: {arguments['out']}")
    elif verb == "audit":
        print(posteriors(result))
    elif verb == "crossvalidate":
        print(dimensions(result))
    else:
        for name, value in result.items():
            for item in value if name == "warnings" else [value]:
                print(f"{name}: {item}")


def posteriors(result: Mapping[str, Any]) -> str:
    """Lay out an audit: a row for each trial and latent, means last, and what they say."""
    lines = [["trial", "latent", "error of mean", "variance ratio", "in 50 %", "in 90 %", "k-hat",
              "R-hat"]]  # fmt: skip

    def add(trial: str, told: Mapping[str, Any], last: list[str]) -> None:
        for name, latent in told.items():
            lines.append([trial, name, *(f"{value:.3f}" for value in latent.values()), *last])

    for row in result["trials"]:
        add(row["trial"], row["latents"], [f"{row['k_hat']:.2f}", f"{row['r_hat']:.3f}"])
    add("mean", result["mean"], ["", ""])
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    text = ["  ".join(map(str.rjust, line, widths)).rstrip() for line in lines]
    off = sum(not row["k_hat"] <= 0.7 for row in result["trials"])
    text.append(f"k-hat above 0.7, so that the posterior misses some of the true one: {off} of "
                f"{len(result['trials'])} trials")  # fmt: skip
    apart = sum(not row["r_hat"] <= 1.05 for row in result["trials"])
    if apart:
        text.append(f"R-hat above 1.05, so that the draws are too few to judge by: {apart} trials; "
                    "raise num_warmup and num_samples")  # fmt: skip
    text += [
        f"on {told['num_trials']} simulated trials {name} lie {told['coverage_50']:.3f} in 50 %, "
        f"{told['coverage_90']:.3f} in 90 %; ranks are uniform with p = {told['p_value']:.2g}"
        for name, told in result.get("calibration", {}).items()
    ]
    return "\n".join([*text, f"audit: {result['folder']}"])


def dimensions(result: Any) -> str:
    """Lay out a cross-validation: a row for each size, a column for each model, * the chosen."""
    if result.summary is None:
        return (
            f"results: {result.folder}\n{result.num_missing} cells are still to be done, by other "
            "shards or another call"
        )
    summary, models = result.summary, result.summary["models"]
    dims = sorted({dim for told in models.values() for dim in told["dims"]})
    lines = [["dimension", *models]]
    for dim in dims:
        cells = []
        for told in models.values():
            scores = dict(zip(told["dims"], told["mean"], strict=True))
            mark = "*" if dim == told["chosen_dim"] else " "
            cells.append(f"{scores[dim]:.4f}{mark}" if dim in scores else "failed ")
        lines.append([str(dim), *cells])
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    laid = ["  ".join(map(str.rjust, line, widths)) for line in lines]
    best = summary["best_model"]
    gaps = [
        f"{best} exceeds {name} by {gap['mean']:.4f} +- {gap['standard_error']:.4f} (paired over "
        "folds)"
        for name, gap in summary["differences"].items()
    ]
    unit = summary["unit"].replace("_", " ")
    head = f"held-out score in {unit}; * chosen by {summary['rule']}; 0 is the mean rate"
    return "\n".join([head, *laid, *gaps, f"results: {result.folder}"])


def table(metrics: Mapping[str, Any]) -> str:
    """Lay out the scores: a row for each score, a column for the model and each baseline.

    Below them, how much the model gains over each baseline, paired over trials, and what is wrong.
    """
    told = [f"{name}: {value}" for name, value in metrics.items() if isinstance(value, str | int)]
    refined = {"refined": metrics["refined"]} if "refined" in metrics else {}
    columns = {"model": metrics, **refined, **metrics.get("baselines", {})}
    scores = {label: _cells(column) for label, column in columns.items()}
    names = list(dict.fromkeys(name for column in scores.values() for name in column))
    lines = [["", *scores]]
    lines += [[name, *(column.get(name, "-") for column in scores.values())] for name in names]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    laid = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    gains = [
        f"gain over {name} on what the model did not see: {gain['mean']:.4f} +- "
        f"{gain['standard_error']:.4f} bits per spike (paired over trials)"
        for name, gain in metrics.get("gain", {}).items()
    ]
    advice = [
        f"advice: {name.replace('_', ' ')}: {found['sentence']}; {found['setting']}"
        for name, found in metrics.get("advice", {}).items()
    ]
    return "\n".join([*told, *("  ".join(line).rstrip() for line in laid), *gains, *advice])


def _cells(scores: Mapping[str, Any]) -> dict[str, str]:
    """Write scores to four digits; those with one number per dimension, side by side."""
    cells = {}
    for name, value in scores.items():
        if isinstance(value, float):
            cells[name] = f"{value:.4f}"
        elif isinstance(value, list):
            cells[name] = " / ".join(f"{part:.3f}" for part in value)
    return cells
