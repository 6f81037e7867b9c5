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
from collections.abc import Sequence
from contextlib import suppress

from seqvae.compute.termination import terminable
from seqvae.console.flags import (
    build,
    is_set,
    read_command,
    read_config,
    read_flags,
    repeated_config,
    run_config,
    with_file,
    with_learner,
    with_learners,
    with_model,
    with_run,
)
from seqvae.console.shipped_help import shipped_help
from seqvae.errors import InputError, Terminated, nearest, one_line
from seqvae.verbs.table import Verb, verbs

HELP = """usage: seqvae VERB [--config FILE] [--key value ...]

Sequential variational autoencoders for neural time series.

verbs:
{verbs}

examples:
  seqvae fit --config configs/lorenz_svae.yaml --run_dir runs/lorenz
  seqvae evaluate runs/lorenz
  seqvae infer --run runs/lorenz --out posterior.nc
  seqvae fit --from_run runs/lorenz --run_dir runs/again

  seqvae check recording.nwb --write_config mine.yaml
  seqvae convert recording.mat recording.h5 --data.source.bin_width 0.02
  seqvae fit recording.h5 --run_dir runs/mine

'seqvae VERB --help' tells the arguments of a verb; 'seqvae fit ... --print_config' prints every
setting of a run as YAML that --config reads; 'seqvae --version' tells the version;
'seqvae --completion' prints a script by which bash and zsh complete what is typed.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name == "--version":
        import seqvae

        print(f"seqvae {seqvae.__version__}")
        return 0
    known = verbs()
    name = name if name.startswith("-") else name.replace("-", "_")  # add-session, too
    if name in ("-h", "--help"):
        lines = "\n".join(f"  {verb.name:<15}{verb.summary}" for verb in known.values())
        _say(HELP.format(verbs=lines))
        return 0
    if name == "--completion":
        from seqvae.console.completion import completion_script

        _say(completion_script(known), end="")
        return 0
    if name not in known:
        print(f"seqvae: there is no verb {name!r}{nearest(name, known)}", file=sys.stderr)
        return 2
    verb = known[name]
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: _tell(verb, f"warning: {message}")
        try:
            with terminable():
                return _command(verb, rest)
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


def _say(text: str, *, end: str = "\n") -> None:
    """Print an answer; whoever has read enough of it, such as ``head``, may go."""
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)  # for what would be written at the end
        with suppress(OSError):
            os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _tell(verb: Verb, text: str) -> None:
    if _speaks(verb):
        print(f"seqvae {verb.name}: {one_line(text)}", file=sys.stderr)


def _speaks(verb: Verb) -> bool:
    """Whether this is the first of the processes that fit one model together, or alone."""
    if "learner" not in verb.arguments:
        return True
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_initialized():
        return bool(torch.distributed.get_rank() == 0)
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def _interrupted(verb: Verb) -> int:
    goes_on = "resume" if "resume" in verb.arguments else "out_dir"
    cure = {"resume": "; give the same command again with --resume",
            "out_dir": "; give the same command again to go on"}  # fmt: skip
    _tell(verb, f"interrupted{cure[goes_on] if goes_on in verb.arguments else ''}")
    return 130


def _is_users(error: Exception) -> bool:
    """Whether the user can mend it."""
    if isinstance(error, InputError | PermissionError):
        return True
    lightning = sys.modules.get("pytorch_lightning.utilities.exceptions")
    return lightning is not None and isinstance(error, lightning.MisconfigurationException)


def _command(verb: Verb, argv: Sequence[str]) -> int:
    if list(argv) in (["--help"], ["-h"]) and (page := shipped_help(verb.name)) is not None:
        _say(page, end="")
        return 0
    named = with_run if verb.reads_run else with_file
    flags = read_flags(named(argv, verb.arguments))
    # What needs no torch comes first, so that it is refused at once.
    config = None if verb.reads_run else flags.pop("config", None)
    tree = {} if config is None else read_config(str(config))
    repeated = flags.get("from_run", tree.get("from_run")) if "from_run" in verb.arguments else None
    trust = (not verb.reads_run and repeated is None) or is_set(flags.get("trust", False))
    if verb.reads_run and "run" in flags:
        tree = run_config(flags["run"])
    wants_help = is_set(flags.pop("help", False))
    wants_config = is_set(flags.pop("print_config", False))

    from seqvae.console.printing import config_text, help_text

    function = verb.function
    if not verb.learns:
        # A run answers for its own data, unless the command says something about them.
        wanted = not verb.reads_run or any(key.split(".")[0] == "data" for key in flags)
        tree = {"data": tree["data"]} if wanted and "data" in tree else {}
    if trust and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a user's own parts, as with python -m
    sections = {*tree, *(key.split(".")[0] for key in flags)}
    if repeated is not None:
        tree = {**repeated_config(str(repeated), trust), **tree}
    if "model" in verb.arguments:
        tree = with_model(tree, flags)
    unnamed: tuple[str, ...] = ()
    if "learner" in verb.arguments:
        run = flags.get("run") if verb.reads_run else None
        tree, unnamed = with_learner(tree, flags, trust, run=run)
    if "learners" in verb.arguments:
        tree, unnamed = with_learners(tree, flags, trust)
    tree = read_command(function, tree, flags, trust=trust)
    if wants_help:
        _say(help_text(verb.name, function, tree, trust=trust), end="")
        return 0
    if repeated is not None:
        # The run answers for what the command does not touch; a config tells all, without the run.
        tree = {
            k: v for k, v in tree.items() if (k != "from_run" if wants_config else k in sections)
        }
    arguments = build(function, tree, trust=trust, unnamed=unnamed)
    if wants_config:
        _say(config_text(function, arguments, unnamed), end="")
        return 0
    complete = verb.completed(arguments)
    answer = function(**complete)
    if _speaks(verb):
        _say(verb.shown(answer, complete))
    return verb.exit_code(answer)
