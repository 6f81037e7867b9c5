"""What a notebook shows of a run: a short table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from seqvae.storage.html import facts_html

if TYPE_CHECKING:
    from seqvae.runs.run import Run
else:  # which imports this module
    Run = Any

_SCORES = ("val/co_bps", "val/bits_per_spike", "val/elbo", "val/log_likelihood")


def run_html(run: Run) -> str:
    """Tell model, data, learner and the scores of the last validation; nothing is inferred."""
    noted, history = run.provenance, run.history
    spec, numbers = run.spec, noted["data"]["num_trials"]
    trials = ", ".join(f"{number} {word}" for word, number in numbers.items() if number)
    heldout = len(spec.heldout)
    width = "" if spec.bin_width is None else f" of {spec.bin_width:g} s"
    facts: dict[str, object] = {
        "model": _class_name(run.config["model"]),
        "learner": _class_name(run.config["learner"]),
        "trials": trials,
        "bins a trial": f"{spec.num_time_bins}{width}",
        "neurons": f"{spec.num_neurons}" + (f", {heldout} held out" if heldout else ""),
        "seed": run.config["seed"],
    }
    if run.members:
        facts["members"] = ", ".join(run.members)
    last = next((row for row in reversed(history) if any(name in row for name in _SCORES)), {})
    facts |= {f"last {name}": f"{last[name]:.4f}" for name in _SCORES if name in last}
    facts |= {"created": noted["created"]} if "created" in noted else {}
    return facts_html(f"Run {'in memory' if run.folder is None else run.folder}", facts)


def _class_name(section: Any) -> str:
    path = section.get("class_path", "") if isinstance(section, Mapping) else section
    return str(path or "-").rpartition(".")[2]
