"""What was fitted, whether it is worth it, and whether training went well."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np

from seqvae.pages.charts import line, plain
from seqvae.pages.results import Result, class_name
from seqvae.pages.section import Chart, Section, Table
from seqvae.plotting.learning import curves_of, without_the_first_fall
from seqvae.plotting.style import SERIES
from seqvae.scores.benchmark import NULLS
from seqvae.scores.ceiling import ceiling_words

NAMES = {
    "mean_rate": "the mean rate",
    "smoothing_glm": "smoothing + GLM",
    "condition_mean": "the mean of each condition",
}
SCORES = {
    "co_bps": "held-out neurons (co_bps), bits per spike",
    "nlb_co_bps": "held-out neurons (nlb_co_bps), bits per spike",
    "bits_per_spike": "held-in neurons (bits_per_spike), bits per spike",
    "fp_bps": "forecast bins (fp_bps), bits per spike",
    "nlb_fp_bps": "forecast bins (nlb_fp_bps), bits per spike",
    "log_likelihood": "log-likelihood, nats per entry",
    "elbo": "evidence lower bound (elbo), nats per trial",
    "rates_r2": "true rates, R2",
    "nlb_psth_r2": "means by condition against the PSTH (nlb_psth_r2), R2",
    "nlb_behavior_r2": "behaviour read from rates (nlb_behavior_r2), R2",
    "behavior_r2": "behaviour read from factors, R2",
    "condition_behavior_r2": "behaviour, as the mean of the condition, R2",
}
_KNOWN_LONG = 300


def what_was_fitted(result: Result) -> Section:
    """Tell model, data and learner in words; all settings in a table."""
    spec, numbers = result.spec, result.provenance["data"]["num_trials"]
    duration = f" of {1000 * spec.bin_width:g} ms" if spec.bin_width else ""
    heldout = len(spec.heldout)
    seen = f", of which {heldout} are held out from inference" if heldout else ""
    forecast = spec.num_time_bins - spec.num_encoded_bins
    plural = "" if spec.num_time_bins == 1 else "s"
    ahead = f" (the last {forecast} are forecast)" if forecast else ""
    splits = [f"{numbers[word]} {meaning}" for word, meaning in
              (("train", "to learn from"), ("val", "that validated"), ("test", "kept for the test"))
              if numbers.get(word)]  # fmt: skip
    model, learner = result.config["model"], result.config.get("learner")
    words = [
        f"A {result.model} was fitted to {spec.num_neurons} neurons{seen}, in trials of "
        f"{spec.num_time_bins} bin{plural}{duration}{ahead}: {', '.join(splits)}.",
    ]
    if learner is not None:  # as of an ensemble
        passes = f" in {_passes(result)}" if result.history else ""
        words.append(
            f"It was learned by {class_name(learner)}{passes}, with seed {result.config['seed']}."
        )
    if sessions := (result.metrics or {}).get("sessions"):
        words.append(
            f"The trials and neurons are those of several sessions: {', '.join(sessions)}."
        )
    if added := result.provenance.get("added_session"):
        words.append(
            f"The session {added['name']} was added to {added['run']}: {added['parameters']} of "
            f"{added['of']} parameters were learned then, all else was as it is there."
        )
    rows = [(key, value) for section in ("data", "model", "learner")
            for key, value in _leaves(result.config.get(section), section)]  # fmt: skip
    members = result.provenance.get("members") or {}
    if members:
        words.append(f"It is an ensemble of {', '.join(members)}.")
    is_named = isinstance(model, Mapping)
    tables = [Table(("setting", "value"), rows, "all settings", is_folded=True)] if is_named else []
    return Section("What was fitted", words, tables=tables, notes=list(result.thinned))


def _passes(result: Result) -> str:
    last = result.history[-1]
    word, number = curves_of(result.history).word, int(float(last.get("step", 0)))
    return f"{number} {word}{'s' if number != 1 else ''}"


def _leaves(tree: Any, key: str) -> list[tuple[str, str]]:
    """Return the settings of a config tree, with their dotted names."""
    if isinstance(tree, Mapping):
        rows = [(key, class_name(tree))] if "class_path" in tree else []
        inner = tree.get("init_args", {}) if "class_path" in tree else tree
        inner = inner if isinstance(inner, Mapping) else {}
        return rows + [row for name, value in inner.items()
                       for row in _leaves(value, f"{key}.{name}")]  # fmt: skip
    text = str(tree)
    return [(key, text if len(text) <= _KNOWN_LONG else f"{text[:_KNOWN_LONG]} ...")]


def is_it_better(result: Result) -> Section:
    """Tell scores beside the baselines, the paired gains, and the advice."""
    metrics = result.metrics
    if metrics is None:
        return Section("Is it better than simpler models?", notes=["It could not be scored."])
    words = [
        f"On {metrics['num_trials']} {_of_split(metrics['split'])} trials it gains "
        f"{_signed(gain)} over {NAMES.get(name, name)}{_judged(gain)}."
        for name, gain in metrics.get("gain", {}).items()
        if name in NAMES
    ]
    words += [
        f"Ceiling of {ceiling_words(name, ceiling)}."
        for name, ceiling in metrics.get("ceiling", {}).items()
    ]
    notes = [NULLS] if "nlb_co_bps" in metrics or "nlb_fp_bps" in metrics else []
    if not words:
        notes.append("Nothing was held out from inference, so there is no gain to tell; "
                     "hold neurons out (data.heldout) to compare models.")  # fmt: skip
    others = {f"member {name}": value for name, value in metrics.get("members", {}).items()}
    columns = {result.model: metrics, **others, **metrics.get("baselines", {})}
    header = ("score", *(name.replace("_", " ") for name in columns))
    tables = [Table(header, score_rows(columns), "scores; higher is better")]
    if sessions := metrics.get("sessions"):
        title = "scores of each session; higher is better"
        tables.append(Table(("score", *sessions), score_rows(sessions), title))
    advice = metrics.get("advice")
    if result.provenance.get("finished") is False:
        words.append("The fit has not ended: it still goes on, or was ended before (--resume).")
    elif advice is None:
        notes.append("Whether training went well is told for the data of the fit only.")
    elif not advice:
        words.append("Training went well: nothing that the diagnosis looks for was seen.")
    else:
        words += [f"Advice: {found['sentence']}; {found['setting']}." for found in advice.values()]
    return Section("Is it better than simpler models?", words, tables=tables, notes=notes)


def score_rows(columns: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return a row for each score that a column has."""
    return [
        (words, *(_number(column.get(name)) for column in columns.values()))
        for name, words in SCORES.items()
        if any(name in column for column in columns.values())
    ]


def _number(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " / ".join(f"{part:.3f}" for part in value)
    return f"{value:.1f}" if abs(value) >= 1000 else f"{value:.4f}"


def _of_split(split: str) -> str:
    return {"val": "validation", "train": "training", "all": "of all"}.get(split, split)


def _signed(gain: Mapping[str, Any]) -> str:
    unit = gain.get("unit", "bits per spike")
    return f"{gain['mean']:.4f} ± {gain['standard_error']:.4f} {unit} (paired over trials)"


def _judged(gain: Mapping[str, Any]) -> str:
    """Say what a paired gain comes to, against twice its standard error."""
    if abs(gain["mean"]) < 2 * gain["standard_error"]:
        return ", which is within two standard errors: they cannot be told apart"
    return "" if gain["mean"] > 0 else ": it is worse"


def learning(result: Result) -> Section:
    """Draw bound, divergences, scores and learning rate over steps or iterations."""
    title = "Learning curves"
    history = [row for row in result.history if not row.get("refit")]
    if len(history) < 2:
        reason = "learned in one step" if history else "no history was kept"
        return Section(title, notes=[f"There are no learning curves: {reason}."])
    curves = curves_of(history)
    charts = []
    for label, panel in curves.panels.items():
        traces = []
        for name, values in panel.items():
            present = np.isfinite(values)
            mode = "markers" if present.sum() == 1 else "lines"
            dash = "dot" if name.startswith("train/") else "solid"
            traces.append(
                line(curves.step[present], values[present], color=_color(name, panel), name=name,
                     dash=dash, mode=mode, in_legend=True)
            )  # fmt: skip
        axis: dict[str, Any] = {"title": {"text": plain(label)}}
        if label == "learning rate":
            axis["type"] = "log"
        elif label.startswith("ELBO") and (ends := without_the_first_fall(list(panel.values()))):
            axis["range"] = list(ends)
        layout = {"xaxis": {"title": {"text": curves.word}}, "yaxis": axis}
        charts.append(Chart(label, traces, layout))
    return Section(title, charts=charts)


def _color(name: str, panel: Mapping[str, Any]) -> str:
    """One colour for a quantity, in training and validation."""
    quantities = list(dict.fromkeys(one.partition("/")[2] for one in panel))
    return SERIES[quantities.index(name.partition("/")[2]) % len(SERIES)]


def provenance(result: Result) -> Section:
    """Tell where the run comes from, and the command that repeats it."""
    noted = result.provenance
    rows = [
        ("folder", result.folder or "in memory"),
        ("created", str(noted.get("created", "-"))),
        ("data, checksum", result.checksum[:16]),
        ("device", str(noted.get("device", "-"))),
        ("platform", str(noted.get("platform", "-"))),
        ("command", " ".join(map(str, noted.get("command") or ["-"]))),
        *((f"version of {name}", str(value)) for name, value in noted["versions"].items()),
    ]
    table = Table(("", ""), rows, "provenance", is_folded=True)
    if result.folder is None:
        return Section("Provenance", ["The run is in memory."], tables=[table])
    again = result.folder + "_again"
    words = "This command repeats the fit, from what its folder notes alone:"
    code = f"seqvae fit --from_run {quoted(result.folder)} --run_dir {quoted(again)}"
    if added := noted.get("added_session"):
        words = (
            f"The session {added['name']} was added to {added['run']}, of which all else is; "
            f"{added['parameters']} of {added['of']} parameters were learned. It is done again by:"
        )
        command = list(map(str, noted.get("command") or ()))
        if not {"add_session", "add-session"} & set(command):  # it was called in Python
            command = ["seqvae", "add_session", "--run", str(added["run"]), "--data.source", "..."]
        code = " ".join(map(quoted, command))
    elif result.config["data"].get("init_args", {}).get("source") is None:
        words = "The data were in memory; in Python this repeats the fit, given the same data:"
        code = f"seqvae.fit(data, from_run={result.folder!r}, run_dir={again!r})"
    return Section("Provenance", [words], tables=[table], code=code)


def quoted(path: str) -> str:
    """Quote a path as a shell reads it."""
    return shlex.quote(path)
