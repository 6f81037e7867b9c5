"""Work in several processes: what is killed is done again, and nobody works for a dead process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from io import StringIO
from operator import neg
from pathlib import Path

import pytest
from tqdm import tqdm

from seqvae import InputError
from seqvae.compute.workers import Workers
from seqvae.storage.shards import Shard

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from tqdm import tqdm
from seqvae.compute.workers import Workers

def sleep(number):
    list(tqdm(range(3), disable=False, file=open(os.devnull, "w")))
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(100)

if __name__ == "__main__":
    # a shell that starts the tests behind its back lets them ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    list(Workers(2).answers(sleep, [1, 2]))
"""


def begun(folder):
    """Two processes that sleep for a third one, and how these are numbered."""
    folder.mkdir()
    script = folder.with_suffix(".py")
    script.write_text(SCRIPT)
    parent = subprocess.Popen(
        [sys.executable, script, folder], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    until = time.monotonic() + 120
    while len(list(folder.iterdir())) < 2:
        assert time.monotonic() < until
        assert parent.poll() is None, parent.communicate()[1]
        time.sleep(0.05)
    return parent, [int(path.name) for path in folder.iterdir()]


def is_there(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes by /proc")
def test_workers_of_a_killed_process_end_too(tmp_path):
    parent, workers = begun(tmp_path / "a")
    assert all(map(is_there, workers))
    parent.kill()
    parent.communicate()
    until = time.monotonic() + 20
    while any(map(is_there, workers)):
        assert time.monotonic() < until, "workers learn for nobody"
        time.sleep(0.1)


def test_an_interrupted_process_ends_and_no_lock_of_a_bar_is_left(tmp_path):
    """Of its own semaphores, ``/loky-...``, joblib complains now and then."""
    parent, _ = begun(tmp_path / "a")
    os.killpg(parent.pid, signal.SIGINT)
    _, told = parent.communicate(timeout=60)
    assert "KeyboardInterrupt" in told
    assert "/mp-" not in told


def kind_of_lock(_: int) -> str:
    return type(tqdm.get_lock()).__name__


def test_bars_of_workers_have_a_lock_that_no_process_shares():
    assert {*Workers(2).answers(kind_of_lock, [1, 2])} == {"RLock"}


def test_workers_are_where_whoever_asks_is(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert {*Workers(2).answers(os.path.abspath, ["."] * 2)} == {str(tmp_path / name)}


def square(task: tuple[int, Path]) -> int:
    number, mark = task
    if not mark.exists() and number == 2:
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def test_what_a_killed_worker_did_not_do_is_done_again(tmp_path):
    tasks = [(number, tmp_path / "killed") for number in (0, 1, 2)]
    with tqdm(initial=5, total=8, disable=False, file=StringIO()) as bar:
        assert sorted(Workers(2).answers(square, tasks, bar=bar)) == [0, 1, 4]
        assert bar.n == 8


@pytest.mark.parametrize("jobs", [1, 2])
def test_of_a_task_that_was_killed_only_the_rest_is_done_again(jobs, monkeypatch):
    """Lists of numbers, the first of which are done when a worker is killed."""
    from concurrent.futures.process import BrokenProcessPool

    given = []

    def numbered(workers, function, tasks, bar, size):
        given.append(dict(tasks))
        yield next((number, function(task)) for number, task in tasks.items())
        if len(given) < 3:
            raise BrokenProcessPool

    monkeypatch.setattr(Workers, "_numbered", numbered)
    tasks = [[1, 2], [3, 4, 5], [6]]
    answers = Workers(jobs).answers(sum, tasks, rest=lambda task: task[1:] or None)
    assert list(answers) == [3, 9]
    assert given == [{0: [1, 2], 1: [3, 4, 5], 2: [6]}, {1: [4, 5]}]


def assert_answers(backend):
    with tqdm(total=4, disable=False, file=StringIO()) as bar:
        found = Workers(2, backend).answers(neg, [0, 1, 2, 3], bar=bar)
        assert sorted(found) == [-3, -2, -1, 0]
        assert bar.n == 4


def test_ray_answers_and_tells_how_far_it_is():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    try:
        assert_answers("ray")
    finally:
        ray.shutdown()


def test_dask_answers_if_its_workers_have_one_thread_each():
    distributed = pytest.importorskip("distributed")
    import dask

    with pytest.raises(InputError, match="needs a scheduler; set DASK_SCHEDULER_ADDRESS"):
        Workers(2, "dask")
    for num_threads in (1, 2):
        settings = {"n_workers": 1, "threads_per_worker": num_threads, "dashboard_address": None}
        with (
            distributed.LocalCluster(**settings) as cluster,
            dask.config.set({"scheduler-address": cluster.scheduler_address}),
        ):
            if num_threads == 1:
                assert_answers("dask")
            else:
                with pytest.raises(InputError, match="one thread each; start them with --nthr"):
                    assert_answers("dask")


def test_workers_that_cannot_be_had_are_refused(monkeypatch):
    with pytest.raises(InputError, match="jobs must be at least 1"):
        Workers(-2)
    with pytest.raises(InputError, match="backend 'luky' is unknown; did you mean 'loky'"):
        Workers(2, "luky")
    with pytest.raises(InputError, match="are for backend 'ray', not 'dask'"):
        Workers(2, "dask", {"num_gpus": 1})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"'ray' is not installed; pip install 'seqvae\[ray\]'"):
        Workers(2, "ray")


def test_shares_are_all_of_the_work_and_nothing_twice():
    shards = [Shard.parse(f"{part}/3") for part in (1, 2, 3)]
    shares = [shard.of(range(10)) for shard in shards]
    assert sorted(task for share in shares for task in share) == list(range(10))
    assert max(map(len, shares)) - min(map(len, shares)) == 1
    assert len({shard.lock for shard in shards}) == 3
    assert Shard.parse("1/1") == Shard.parse(None)
