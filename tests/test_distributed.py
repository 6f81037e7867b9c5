from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from seqvae import VAE, InputError, fit
from seqvae.compute import noise
from seqvae.compute.ranks import Place, Share
from seqvae.data.batching import OrderedBatches, ShuffledBatches
from seqvae.learning.devices.spawning import in_processes
from seqvae.learning.devices.strategy import plan_devices
from seqvae.models.scores import Scores
from tiny import tiny_data, tiny_learner, weights
from together import CASES, be_interrupted, be_killed, fit_all, fit_case, refuse, train_plainly

ROOT = Path(__file__).parent.parent
FILES = {"config.yaml", "history.csv", "last.ckpt", "provenance.json", "weights.pt"}
EXACT = [name for name in CASES if not name.startswith(("single", "mixed"))]


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Every fit by one process, in ``one``, and by two, in ``two``."""
    folder = tmp_path_factory.mktemp("distributed")
    for name in CASES:
        fit_case(name, f"{folder}/one/{name}", devices=1)
    fit_case("svae", f"{folder}/two/one_two", devices=1, epochs=3)
    in_processes(partial(fit_all, f"{folder}/two"), 2)
    fit_case("svae", f"{folder}/two/two_one", devices=1, resume=True)
    return folder


def parameters(run: Path) -> dict[str, torch.Tensor]:
    return {k: w for k, w in weights(run / "last.ckpt")["state_dict"].items() if w.numel()}


def largest_difference(one: Path, other: Path) -> float:
    ours, theirs = parameters(one), parameters(other)
    assert list(ours) == list(theirs)
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def history(run: Path) -> list[dict[str, float]]:
    with (run / "history.csv").open() as file:
        rows = csv.DictReader(file)
        return [{k: float(v) if v else np.nan for k, v in row.items()} for row in rows]


def metric_difference(one: Path, other: Path, prefix: str = "") -> float:
    """The largest relative difference of a metric."""
    ours, theirs = history(one), history(other)
    assert [list(row) for row in ours] == [list(row) for row in theirs]
    return max(
        abs(row[name] - its[name]) / max(abs(row[name]), 1e-3)
        for row, its in zip(ours, theirs, strict=True)
        for name in row
        if name.startswith(prefix) and not (np.isnan(row[name]) and np.isnan(its[name]))
    )


# --- two processes = one ------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXACT)
def test_two_processes_equal_one_in_double_precision(folder, name):
    one, two = folder / "one" / name, folder / "two" / name
    few = ("accumulated", "early_stopping", "refitted")
    assert history(two)[-1]["step"] >= 20 or name in few
    assert largest_difference(one, two) <= 1e-12
    assert metric_difference(one, two) <= 1e-10


@pytest.mark.parametrize("name", ["single_svae", "single_vae", "single_flds"])
def test_two_processes_equal_one_in_single_precision(folder, name):
    one, two = folder / "one" / name, folder / "two" / name
    assert largest_difference(one, two) <= 1e-5
    assert metric_difference(one, two, "val/elbo") <= 1e-6


@pytest.mark.parametrize("way", ["two_two", "two_one", "one_two"])
def test_a_run_goes_on_with_as_many_processes_as_there_are(folder, way):
    assert largest_difference(folder / "one" / "svae", folder / "two" / way) <= 1e-12
    assert metric_difference(folder / "one" / "svae", folder / "two" / way) <= 1e-10


def test_two_processes_learn_again_what_one_does(folder):
    one, two = (weights(folder / way / "refitted" / "weights.pt") for way in ("one", "two"))
    assert one["refitted"]
    assert two["refitted"]
    assert one["step"] == two["step"]
    for name, weight in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], weight, rtol=0, atol=1e-12)


def test_all_processes_stop_early_and_lower_the_rate_together(folder):
    rows = history(folder / "two" / "early_stopping")
    assert len(rows) < 7
    assert rows[-1]["train/learning_rate"] < rows[0]["train/learning_rate"]


def test_one_process_writes_the_run_folder(folder):
    for name in CASES:
        names = {path.name for path in (folder / "two" / name).iterdir()} - {"refit.ckpt"}
        assert names == FILES, name


def test_lightnings_own_trainer_shares_out_the_trials(folder, tmp_path):
    train_plainly(str(tmp_path), devices=1)
    (one, told), (two, theirs) = (weights(path / "plain.pt") for path in (tmp_path, folder / "two"))
    assert told == pytest.approx(theirs, rel=1e-10)
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-12)


@pytest.mark.parametrize("model", ["svae", "vae", "flds"])
def test_half_precision_trains_to_nearly_the_same_scores(folder, model):
    for devices in ("one", "two"):
        single, mixed = (
            history(folder / devices / f"{kind}_{model}")[-1] for kind in ("single", "mixed")
        )
        assert all(np.isfinite(value) for value in mixed.values())
        assert mixed["val/elbo"] == pytest.approx(single["val/elbo"], rel=1e-2)
        assert mixed["val/bits_per_spike"] == pytest.approx(single["val/bits_per_spike"], abs=1e-2)


def test_several_devices_of_this_machine_need_no_launcher(tmp_path, folder):
    before = torch.get_rng_state()
    run = fit_case("vae", str(tmp_path / "run"), devices=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert (run.folder / "history.csv").read_text() == (
        folder / "two" / "vae" / "history.csv"
    ).read_text()
    best = weights(run.files.weights)["state_dict"]
    for name, weight in run.model().state_dict().items():
        assert torch.equal(weight, best[name].to(weight)), name


# --- what goes wrong in a process is told by the one that has started it -------------------------


def test_a_refusal_in_one_process_ends_all_in_one_sentence(monkeypatch):
    monkeypatch.setattr("seqvae.learning.devices.spawning._GRACE_SECONDS", 0.5)
    with pytest.raises(InputError, match=r"^lr must be below 1, got 2$"):
        in_processes(refuse, 2)


@pytest.mark.slow
def test_a_killed_process_ends_all_in_one_sentence():
    with pytest.raises(InputError, match=r"ended by SIGKILL.*--resume"):
        in_processes(be_killed, 2)


@pytest.mark.slow
def test_interrupted_processes_are_an_interrupt():
    with pytest.raises(KeyboardInterrupt):
        in_processes(be_interrupted, 2)


@pytest.mark.slow
def test_divergence_in_a_process_is_told_as_in_one(tmp_path):
    learner = tiny_learner(3, trainer={"devices": 2})
    model = partial(VAE, latent_dim=2, optimizer=partial(torch.optim.SGD, lr=1e30))
    with pytest.raises(InputError, match=r"training diverged: .* at step"):
        fit(tiny_data(), model, learner, run_dir=str(tmp_path / "run"))


# --- how trials are shared out ------------------------------------------------------------------


@pytest.mark.parametrize("num_replicas", [1, 2, 3, 40])
def test_batches_are_those_of_one_process_whatever_their_number(num_replicas):
    trials = np.arange(100, 165)
    whole = list(ShuffledBatches(trials, 32, seed=1))
    parts = [
        ShuffledBatches(trials, 32, seed=1, num_replicas=num_replicas, rank=rank)
        for rank in range(num_replicas)
    ]
    for index, batches in enumerate(zip(*parts, strict=True)):
        shares = [part.share(index) for part in parts]
        real = [b.own for b, share in zip(batches, shares, strict=True) if share.own]
        assert sorted(np.concatenate(real)) == sorted(whole[index].own)
        assert all((b.whole == whole[index].own).all() for b in batches)
        assert sum(share.own for share in shares) == shares[0].whole == len(whole[index].own)
        assert all(len(b.own) == max(s.own, 1) for b, s in zip(batches, shares, strict=True))
        assert sum(share.scale for share in shares) == pytest.approx(num_replicas)
    scored = [
        list(OrderedBatches(trials, 32, num_replicas=num_replicas, rank=rank))
        for rank in range(num_replicas)
    ]
    assert {len(batches) for batches in scored} == {3}
    assert sorted(np.concatenate([b.own for batches in scored for b in batches])) == list(trials)


def test_mean_of_all_is_the_mean_where_there_is_one_process():
    own = torch.randn(3, requires_grad=True)
    assert Share(4, 4).mean_of_all(own) is own


def test_sums_of_two_scores_make_the_score_of_all():
    data = tiny_data()
    model = VAE(data.spec, latent_dim=2)
    model.initialize(data)
    model.eval()
    whole, one, other, total = (Scores(data.spec, model.null_counts, counts=True) for _ in range(4))
    trials = data.trials("train")
    with noise.keyed(1):
        for batch in data.batches("train", 3):
            whole.update(model(batch, 2), batch)
        for scores, chosen in ((one, trials[:5]), (other, trials[5:])):
            batch = data.batch(chosen)
            scores.update(model(batch, 2), batch)
    for scores in (one, other):
        total.add_sums(scores.sums())
    assert total.compute() == pytest.approx(whole.compute(), rel=1e-5)
    total.add_sums(total.sums())
    assert total.compute() == pytest.approx(whole.compute(), rel=1e-5)


# --- who starts the processes --------------------------------------------------------------------


def made(**settings):
    learner = tiny_learner(1, trainer=settings)
    return plan_devices(learner.trainer)


def test_one_device_trains_here():
    assert made() == made(strategy="ddp_spawn", devices=1)
    assert made().to_start == 0
    assert made().place == Place(0, 1)


@pytest.mark.parametrize("strategy", ["auto", "ddp_spawn", "ddp_spawn_find_unused_parameters_true"])
def test_several_devices_are_started_from_here(strategy):
    found = made(devices=2, strategy=strategy)
    assert found.to_start == 2
    assert found.place == Place(0, 1)
    assert found.settings == {"strategy": "ddp"}


def test_processes_of_a_launcher_are_not_started_again(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    found = made(devices=2)
    assert found.to_start == 0
    assert found.place == Place(1, 2)


def test_strategy_of_the_user_stays():
    found = made(devices=2, strategy="ddp")
    assert found.settings == {}
    assert found.place == Place(0, 2)


def test_a_notebook_trains_on_one_device_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    learner = tiny_learner(1, trainer={"devices": 2})
    with pytest.warns(UserWarning, match="a notebook cannot start a process for each of 2"):
        run = fit(tiny_data(), partial(VAE, latent_dim=2), learner, run_dir=str(tmp_path / "run"))
    assert run.files.last_checkpoint.exists()


def test_torchrun_must_fit_the_devices(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"trainer\.devices is 1, but torchrun has started 3"):
        made()
    with pytest.raises(InputError, match=r"trainer: .*does not match the world size"):
        made(devices=2)


def test_processes_of_a_launcher_need_a_common_folder(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    learner = tiny_learner(1, trainer={"devices": 2})
    with pytest.raises(InputError, match="run_dir is required where 2 processes"):
        fit(tiny_data(), VAE, learner)


def test_a_strategy_that_would_fail_is_refused(tmp_path):
    learner = tiny_learner(
        1, trainer={"devices": 2, "strategy": "ddp"}, select="val/log_likelihood"
    )
    model = CASES["unused_parameters"].model
    with pytest.raises(InputError, match=r"'prior.mean' has no gradient; set 'ddp_find_unused"):
        fit(tiny_data(), model, learner, run_dir=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_data_are_shared_out_as_the_trainer_says():
    data = tiny_data()
    data.trainer = SimpleNamespace(distributed_sampler_kwargs={"num_replicas": 2, "rank": 1})
    (loader,) = data.val_dataloader()
    (batch,) = loader
    assert batch.trial.tolist() == data.trials("val")[1::2].tolist()


@pytest.mark.slow
def test_each_cell_of_a_grid_on_ray_has_a_gpu_of_its_own():
    pytest.importorskip("ray")
    script = Path(__file__).parent / "ray_gpus.py"
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)], env=environment, text=True,
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout.splitlines()[-1])
    assert {gpu for gpu, *_ in told["seen"]} == {"0", "1"}
    for gpu in "01":
        times = sorted(times for own, *times in told["seen"] if own == gpu)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(times))
    assert told["refused"].startswith("jobs=3 workers with 1 GPUs each are more than the 2 GPUs")
