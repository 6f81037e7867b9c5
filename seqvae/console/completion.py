"""A script by which bash and zsh complete verbs, flags and the names of classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from seqvae.config import open_parameters
from seqvae.config.class_paths import family_names
from seqvae.config.signatures import Parameter, parameters, read_leaf
from seqvae.verbs.table import Verb

DEPTH = 3
"""Names in the deepest flag, as in ``--learner.trainer.max_epochs``."""

SCRIPT = """# Completion of the commands of seqvae, for bash and zsh.
if [[ -n ${ZSH_VERSION-} ]]; then autoload -Uz bashcompinit && bashcompinit; fi
_seqvae() {
    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"
    local words=""
    if [[ $COMP_CWORD -eq 1 ]]; then
        words="%(verbs)s --help --version --completion"
    else
        case "${COMP_WORDS[1]} $before" in
%(values)s
            *) if [[ $word == -* ]]; then
                case "${COMP_WORDS[1]}" in
%(flags)s
                esac
            fi;;
        esac
    fi
    COMPREPLY=( $(compgen -W "$words" -- "$word") )
}
complete -o default -F _seqvae seqvae
"""


def completion_script(verbs: Mapping[str, Verb]) -> str:
    """Return the script: the flags of each verb, of whatever class, and what may follow them.

    It is fixed text, which asks the program nothing while one types, so it is written again for
    another version of the package; classes of the user are not in it.
    """
    flags, values = [], []
    for name, verb in verbs.items():
        choices: dict[str, list[str]] = {}
        for flag, names in _flags(parameters(verb.function), ""):
            choices[flag] = [*choices.get(flag, ()), *names]
        words = " ".join(f"--{flag}" for flag in (*choices, "help"))
        flags.append(f'                    {name}) words="{words}";;')
        values += [
            f'            "{name} --{flag}") words="{" ".join(dict.fromkeys(names))}";;'
            for flag, names in choices.items()
            if names
        ]
    lists = {"verbs": " ".join(verbs), "flags": "\n".join(flags), "values": "\n".join(values)}
    return SCRIPT % lists


def _flags(arguments: Mapping[str, Parameter], prefix: str) -> Iterator[tuple[str, list[str]]]:
    """Give each flag with the classes it takes, and below it the flags of each of these."""
    for name, parameter in arguments.items():
        if read_leaf("a folder", parameter.annotation)[0]:
            yield prefix + name, []  # what the shell completes itself
            continue
        names = family_names(parameter.annotation)
        yield prefix + name, names if len(names) > 1 else []
        if prefix.count(".") < DEPTH - 1:
            for tree in names if len(names) > 1 else [None]:
                chosen = open_parameters(tree, parameter.annotation, key=name)
                if chosen is not None:
                    yield from _flags(chosen.parameters, f"{prefix}{name}.")
