"""The command line: the verbs of ``seqvae.verbs``, their arguments as dotted flags or YAML.

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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from seqvae.compute.termination import terminable
from seqvae.console.flags import (
    build,
    is_set,
    read_command,
    read_flags,
    read_yaml,
    repeated_config,
    run_config,
    with_learner,
    with_learners,
)
from seqvae.errors import InputError, Terminated, nearest, one_line

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
  seqvae fit --from_run runs/lorenz --run_dir runs/again

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
            with terminable():
                _command(verb, rest)
        except KeyboardInterrupt:
            return _interrupted(verb)
        except Terminated as end:
            _tell(verb, str(end))
            return 143
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
    from seqvae import verbs

    found: Callable[..., Any] = getattr(verbs, verb)
    return found


def _tell(verb: str, text: str) -> None:
    if verb != "fit" or _is_first():
        print(f"seqvae {verb}: {one_line(text)}", file=sys.stderr)


def _is_first() -> bool:
    """Whether this is the first of the processes that fit one model together, or alone."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_initialized():
        return bool(torch.distributed.get_rank() == 0)
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


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
    repeated = flags.get("from_run", tree.get("from_run")) if verb == "fit" else None
    is_own = takes_config and repeated is None
    trust = is_own or is_set(flags.get("trust", False))
    if "run" in flags and not takes_config:
        tree = run_config(str(flags["run"]))
    wants_help = is_set(flags.pop("help", False))
    wants_config = is_set(flags.pop("print_config", False))

    from seqvae.console.printing import config_text, help_text, report

    function = _function(verb)
    if verb not in ("fit", "crossvalidate"):
        # A run answers for its own data, unless the command says something about them.
        wanted = verb == "check" or any(key.split(".")[0] == "data" for key in flags)
        tree = {"data": tree["data"]} if wanted and "data" in tree else {}
    if trust and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a user's own parts, as with python -m
    given = {*tree, *(key.split(".")[0] for key in flags)}
    if repeated is not None:
        tree = {**repeated_config(str(repeated), trust), **tree}
    if verb == "fit":
        tree = with_learner(tree, flags, trust)
    if verb == "crossvalidate":
        tree = with_learners(tree, flags, trust)
    tree = read_command(function, tree, flags, trust=trust)
    if wants_help:
        print(help_text(verb, function, tree, trust=trust), end="")
        return
    if repeated is not None:
        # The run answers for what the command does not touch; a config tells all, without the run.
        tree = {k: v for k, v in tree.items() if (k != "from_run" if wants_config else k in given)}
    arguments = build(function, tree, trust=trust)
    if wants_config:
        print(config_text(function, arguments), end="")
        return
    if verb == "infer" and arguments.get("out") is None:
        arguments["out"] = str(Path(str(flags["run"])) / "posterior.nc")
    result = function(**arguments)
    if verb != "fit" or _is_first():
        report(verb, arguments, result)
