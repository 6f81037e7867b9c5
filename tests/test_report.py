"""The page: whole, safe, and honest about what it could not show."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from browser import CHROMIUM, browser
from seqvae import EM, FactorAnalysis, InputError, LinearDynamics, Run, fit, report
from seqvae.console.main import main
from seqvae.data.sources import Arrays, write_hdf5
from seqvae.pages import Result, gather, page, sections
from seqvae.pages.comparison import difference, unseen_of
from seqvae.pages.fit import provenance, what_was_fitted
from seqvae.pages.section import Part, Section
from seqvae.scores.benchmark import NULLS
from seqvae.types import DataSpec
from tiny import LORENZ, SVAE, tiny_learner

pytest.importorskip("plotly")
HOSTILE = "<script>document.title='hacked'</script>"
MOST_BYTES = 15_000_000


class Read(HTMLParser):
    """What a page holds: its tags, the charts it draws, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.charts: dict[str, dict] = {}
        self.words = ""
        self._chart: str | None = None
        self._is_script = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._chart = dict(attrs).get("data-chart") if tag == "script" else None
        self._is_script = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._is_script = False

    def handle_data(self, data):
        if self._chart and self._is_script:
            self.charts[self._chart] = json.loads(data)
        elif not self._is_script:
            self.words += data


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two runs on a recording with hostile names, conditions and behaviour."""
    place = tmp_path_factory.mktemp("runs")
    recording = LORENZ.load()
    recording = replace(
        recording,
        condition=np.array(["left", "right", HOSTILE])[np.arange(24) % 3],
        behavior=np.cumsum(recording.activity[..., :2], axis=1),
        neuron_ids=[f"{HOSTILE}{n}" for n in range(recording.num_neurons)],
        event_times=0.03,
        event_name="cue",
    )
    write_hdf5(recording, place / "data.h5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
        fit(str(place / "data.h5"), SVAE, tiny_learner(2), run_dir=str(place / "<b>svae"))
        linear = partial(LinearDynamics, latent_dim=3)
        learner = EM(max_iterations=2, progress=False)
        fit(str(place / "data.h5"), linear, learner, run_dir=str(place / "plds"))
    return place


@pytest.fixture(scope="module")
def one(place):
    """The page of the sequential VAE."""
    return Path(report(str(place / "<b>svae"), num_samples=4, out=str(place / "one.html")))


@pytest.fixture(scope="module")
def two(place):
    """The page of both."""
    runs = ["--run", str(place / "<b>svae"), "--run", str(place / "plds")]
    out = place / "two.html"
    assert main(["report", *runs, "--num_samples", "4", "--out", str(out)]) == 0
    return out


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_a_page_holds_every_section_and_charts_that_plotly_takes(one):
    import plotly.graph_objects as go

    found = Read(text_of(one))
    for heading in ("What was fitted", "Is it better than simpler models?", "Learning curves",
                    "Rasters beside rates", "Single trials", "Latents", "Means by condition",
                    "Inferred inputs", "Behaviour decoded", "Neuron by neuron",
                    "Provenance"):  # fmt: skip
        assert heading in found.words
    for told in ("(nlb_co_bps), bits per spike", "(nlb_behavior_r2)", "condition mean", NULLS):
        assert told in found.words
    places = {attrs["id"] for tag, attrs in found.tags if attrs.get("class") == "chart"}
    assert places == set(found.charts)
    assert len(places) > 12
    assert any(t["type"] == "scatter3d" for c in found.charts.values() for t in c["data"])
    for chart in found.charts.values():
        plain = json.loads(re.sub(r'"@\w+"', '"#123456"', json.dumps(chart)))
        go.Figure(plain["data"], plain["layout"])
    assert "seqvae fit --from_run" in found.words


def test_a_fit_to_arrays_in_memory_is_not_said_to_repeat_from_its_folder_alone(tmp_path):
    counts = np.random.default_rng(0).poisson(1.0, (6, 1, 3)).astype(np.float32)
    run = fit(counts, partial(FactorAnalysis, latent_dim=1), run_dir=str(tmp_path / "r"))
    result = gather(run, "r")
    assert "given the same data" in provenance(result).words[0]
    assert provenance(result).code.startswith("seqvae.fit(data, from_run=")
    assert "in trials of 1 bin:" in what_was_fitted(result).words[0]


def test_a_page_asks_for_nothing(one):
    found = Read(text_of(one))
    for tag, attrs in found.tags:
        assert tag not in ("iframe", "object", "embed", "form", "base")
        assert "src" not in attrs
        assert (attrs.get("href") or "#").startswith(("#", "data:"))
    policy = [attrs["content"] for _, attrs in found.tags if attrs.get("http-equiv")]
    assert policy[0].startswith("default-src 'none'")


def test_text_of_files_is_no_code(one):
    text = text_of(one)
    assert HOSTILE not in text
    assert "<b>svae" not in text
    assert "&lt;b&gt;svae" in text
    found = Read(text)
    assert HOSTILE in found.words  # as text, in the legend of conditions
    captions = [attrs for tag, attrs in found.tags if tag == "figcaption"]
    assert captions
    for chart in found.charts.values():
        assert "<script" not in json.dumps(chart)


def test_runs_are_compared_and_paired(two, place):
    words = Read(text_of(two)).words
    assert "Comparison of the runs" in words
    assert "first gains over second" in words
    assert "<b>svae" in words
    assert "plds" in words
    assert "No run is a LinearDynamics" not in words


def posterior_of(name: str, place: Path) -> Result:
    from seqvae.pages import gather
    from seqvae.pages.results import with_posterior

    run = Run(place / name)
    result = gather(run, name)
    return with_posterior(result, run.model(), run.data(), split="val", seed=0)


def test_a_paired_difference_is_that_of_the_gains_over_the_mean_rate(place):
    from seqvae import evaluate

    one, other = posterior_of("plds", place), posterior_of("<b>svae", place)
    gap = difference(unseen_of(one), unseen_of(other))
    assert gap.standard_error > 0
    zero = difference(unseen_of(one), unseen_of(one))
    assert zero.mean == 0
    gains = [evaluate(str(place / r.name), num_samples=20, split="val")["gain"]["mean_rate"]["mean"]
             for r in (one, other)]  # fmt: skip
    assert gap.mean == pytest.approx(gains[0] - gains[1], abs=2e-3)


def test_what_is_not_there_is_told_in_a_line(tmp_path):
    plain = Arrays(LORENZ.load().activity, bin_width=0.02)
    learner = EM(max_iterations=2, progress=False)
    fit_ = partial(fit, plain, partial(LinearDynamics, latent_dim=2), learner, in_memory=True)
    words = Read(text_of(Path(report(fit_(), out=str(tmp_path / "page.html"))))).words
    for line in ("names no conditions to average over", "holds no behaviour",
                 "LinearDynamics infers no inputs", "no gain to tell"):  # fmt: skip
        assert line in words


def test_a_run_whose_data_are_gone_shows_what_can_be_shown(place, tmp_path, caplog):
    shutil.copytree(place / "plds", tmp_path / "plds")
    config = (tmp_path / "plds" / "config.yaml").read_text()
    (tmp_path / "plds" / "config.yaml").write_text(config.replace("data.h5", "gone.h5"))
    found = Read(text_of(Path(report(str(tmp_path / "plds"), out=str(tmp_path / "page.html")))))
    assert "Rasters, latents and all else that needs the data is left out" in found.words
    assert "gone.h5" in found.words
    assert "plds: " in caplog.text  # the terminal says so, too
    assert "its page has no scores" in caplog.text
    assert "Provenance" in found.words
    assert found.charts  # the learning curves


def test_what_cannot_be_reported_is_refused_and_nothing_is_written(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recording = LORENZ.load()
    write_hdf5(replace(recording, activity=recording.activity[::-1]), place / "other.h5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
        learner = EM(max_iterations=1, progress=False)
        if not (place / "other").exists():
            fit(str(place / "other.h5"), partial(LinearDynamics, latent_dim=2), learner,
                run_dir=str(place / "other"))  # fmt: skip
    (tmp_path / "summary.json").write_text('{"models": {"a": 3}}')
    before = set(tmp_path.iterdir())
    for arguments, sentence in (
        ({"run": str(place)}, "is not a run: it has no config.yaml"),
        ({"run": [str(place / "plds"), str(place / "other")]}, "different recordings"),
        ({}, "give a run"),
        ({"run": str(place / "plds"), "out": "page.pdf"}, "give a name that ends so"),
        ({"crossvalidation": str(place)}, "holds no summary.json"),
        ({"crossvalidation": str(tmp_path)}, "is no summary of a cross-validation"),
    ):
        with pytest.raises(InputError, match=sentence):
            report(**arguments)
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(InputError, match=r"pip install 'seqvae\[report\]'"):
        report(str(place / "plds"))
    assert set(tmp_path.iterdir()) == before


def summary() -> dict:
    models = {
        name: {
            "chosen_dim": 4, "winner": 8, "dims": [0, 2, 4, 8], "mean": [0.0, 0.1, height, height],
            "standard_error": [0.0, 0.01, 0.01, 0.01], "paired_se": [0.02, 0.01, 0.005, 0.0],
            "confidence_set": [4, 8],
        }
        for name, height in (("fa", 0.2), (HOSTILE, 0.3))
    }  # fmt: skip
    return {
        "unit": "bits_per_spike", "models": models, "best_model": HOSTILE,
        "differences": {"fa": {"mean": 0.1, "standard_error": 0.02, "degrees_of_freedom": 4,
                               "low": 0.0445, "high": 0.1555}},
        "notes": ["few folds"],
        "folds": {"rows": 5, "neurons": 4},
    }  # fmt: skip


def test_a_cross_validation_has_a_curve_of_dimensions(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps(summary()))
    out = report(crossvalidation=str(tmp_path), out=str(tmp_path / "page.html"))
    found = Read(text_of(Path(out)))
    assert HOSTILE not in text_of(Path(out))
    assert "5 trial folds x 4 of neurons" in found.words
    assert "It exceeds fa, of dimension 4, by 0.1000, 95 % interval 0.0445 to 0.1555" in found.words
    assert "Dimensions of fa that the data do not exclude as its best at 95 %: 4, 8" in found.words
    assert "Few folds." in found.words
    (chart,) = found.charts.values()
    assert chart["layout"]["xaxis"]["tickvals"] == [0, 2, 4, 8]
    assert "error_y" in chart["data"][0]


def test_a_large_recording_stays_small_on_the_page():
    rng, trials, bins, neurons = np.random.default_rng(0), 500, 200, 200
    shape = (trials, bins, neurons)
    rates = rng.gamma(2.0, 5.0, shape).astype(np.float32)
    posterior = xr.Dataset(
        {
            "activity": (("trial", "time", "neuron"), rng.poisson(0.1, shape).astype(np.float32)),
            "rates": (("trial", "time", "neuron"), rates),
            "rates_sd": (("trial", "time", "neuron"), 0.1 * rates),
            "factors": (("trial", "time", "factor"), rng.normal(size=(trials, bins, 20))),
            "behavior": (("trial", "time", "behavior_dim"), rng.normal(size=(trials, bins, 3))),
        },
        {
            "trial": np.arange(trials), "neuron": np.arange(neurons),
            "time": ("time", 0.01 * np.arange(bins), {"units": "s"}),
            "condition": ("trial", np.arange(trials) % 9),
        },
        {"bin_width": 0.01},
    )  # fmt: skip
    scores = [{"id": n, "group": "heldin", "spikes": 9.0, "bits": 1.0, "bits_per_spike": n / 200,
               "baselines": {"smoothing_glm": 0.1}} for n in range(neurons)]  # fmt: skip
    result = Result(
        name="run", folder="run", history=[],
        config={"model": "x.SequentialVAE", "seed": 0, "data": {}},
        provenance={"data": {"num_trials": {"train": 1}, "checksum": "0"}, "versions": {}},
        spec=DataSpec(
            heldin=tuple(range(neurons)), num_neurons=neurons, num_inputs=0, num_time_bins=bins,
            num_encoded_bins=bins, bin_width=0.01,
        ),
        metrics={"split": "val", "num_trials": trials, "per_neuron": scores}, posterior=posterior,
        decoded=posterior["behavior"].values,
    )  # fmt: skip
    whole = page(sections([result]), title="large")
    assert len(whole.encode()) < MOST_BYTES
    assert "Of 500 trials 60 are drawn" in whole


def test_words_and_cells_are_escaped_wherever_they_stand():
    section = Section(
        HOSTILE, [HOSTILE], notes=[HOSTILE], legend=[(HOSTILE, HOSTILE)], code=HOSTILE
    )
    assert HOSTILE not in page([Part(HOSTILE, [section])], title=HOSTILE, subtitle=HOSTILE)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_chromium_draws_turns_and_fits_a_phone_without_error_or_request(one, tmp_path):
    with browser(tmp_path / "profile") as tab:
        address = one.as_uri()
        tab.send("Page.navigate", url=address)
        tab.wait("Number(document.documentElement?.dataset.drawn || 0) > 12")
        assert tab.value("document.title") == "SequentialVAE: <b>svae"
        empty = "[...document.querySelectorAll('.chart')].filter(c => !c.querySelector('svg'))"
        assert tab.value(f"{empty}.length") == 0
        tab.value("document.querySelector('.gl-container canvas').scrollIntoView()")
        solid = "[...document.querySelectorAll('.chart')].find(c => c._fullLayout.scene)"
        camera = f"JSON.stringify({solid}._fullLayout.scene._scene.getCamera().eye)"
        before = tab.value(camera)
        x, y = tab.value(
            f"(() => {{ const r = {solid}.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        tab.drag((x, y), (x + 80, y + 20))
        tab.wait(f"{camera} !== '{before}'")
        ink = "document.querySelector('.xtick text').style.fill"
        light = tab.value(ink)
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        tab.send("Emulation.setEmulatedMedia", features=dark)
        tab.wait(f"{ink} !== '{light}'")
        phone = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
        tab.send("Emulation.setDeviceMetricsOverride", **phone)
        tab.wait("document.documentElement.scrollWidth <= 390")
        wide = "[...document.querySelectorAll('.main-svg')].filter(s => s.clientWidth > 390).length"
        assert tab.value(wide) == 0
        asked = [event["request"]["url"] for event in tab.named("Network.requestWillBeSent")]
        assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [address]
        assert not tab.named("Runtime.exceptionThrown")
        errors = [event["entry"]["text"] for event in tab.named("Log.entryAdded")
                  if event["entry"]["level"] == "error"]  # fmt: skip
        errors += [str(event["args"]) for event in tab.named("Runtime.consoleAPICalled")
                   if event["type"] in ("error", "assert")]  # fmt: skip
        assert not errors
