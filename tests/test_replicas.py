from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from seqvae.analysis import posterior as inference
from seqvae.analysis.devices import Halving, chosen_devices, in_order, is_out_of_memory, replicas
from seqvae.analysis.posterior import posterior_dataset
from seqvae.data import NeuralData
from seqvae.data.sources import Arrays
from seqvae.errors import InputError
from seqvae.models import VAE, LinearDynamics, SequentialVAE
from toy import scramble

CPU = torch.device("cpu")
NO_MEMORY = (
    MemoryError(),
    np._core._exceptions._ArrayMemoryError((9,), np.dtype(float)),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:114] . DefaultCPUAllocator: can't allocate memory"
    ),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
)


@pytest.fixture
def data() -> NeuralData:
    """13 trials of 8 bins (one of 5), 6 neurons of which 2 are held out, 2 forecast bins."""
    activity = np.random.default_rng(0).poisson(1.0, (13, 8, 6)).astype(float)
    activity[3, 5:] = np.nan
    return NeuralData(Arrays(activity, 0.02), heldout=[1, 4], forecast_bins=2)


@pytest.fixture
def model(data: NeuralData) -> SequentialVAE:
    torch.manual_seed(0)
    model = SequentialVAE(
        data.spec, factor_dim=3, generator_dim=8, initial_condition_dim=4, controller_dim=6,
        controller_encoder_dim=6,
    )  # fmt: skip
    scramble(model, size=0.1)
    model.initialize(data)
    return model


@pytest.fixture
def two_a_chunk(monkeypatch: pytest.MonkeyPatch, data: NeuralData) -> None:
    monkeypatch.setattr(inference, "MAX_ENTRIES", 2 * 3 * data.spec.num_time_bins * 256)


def infer(model, data, *, num_devices=1, trials=None, **options):
    trials = data.trials("all") if trials is None else trials
    devices = [CPU] * num_devices
    return posterior_dataset(model, data, trials, num_samples=3, devices=devices, **options)


def hinder(model, monkeypatch, function):
    """Call a function with the replica's number and the trials, before each of its answers."""
    made = replicas

    def hindered(model, devices):
        found = made(model, devices)
        for number, replica in enumerate(found):
            replica.register_forward_pre_hook(
                lambda _, arguments, number=number: function(number, arguments[0].trial.tolist())
            )
        return found

    monkeypatch.setattr(inference, "replicas", hindered)


@pytest.mark.usefixtures("two_a_chunk")
@pytest.mark.parametrize("num_devices", [2, 3, 20])
def test_replicas_give_what_one_gives_in_the_order_of_trials(model, data, num_devices, tmp_path):
    trials = np.array([4, 3, 12, 0, 1, 2, 9, 8, 7, 6])
    alone = infer(model, data, trials=trials)
    shared = infer(model, data, trials=trials, num_devices=num_devices)
    assert alone.identical(shared)
    assert alone["trial"].values.tolist() == trials.tolist()
    path = str(tmp_path / "posterior.nc")
    with infer(model, data, trials=trials, num_devices=num_devices, path=path) as file:
        assert file.load().identical(alone)


@pytest.mark.usefixtures("two_a_chunk")
def test_a_slow_replica_leaves_chunks_to_the_other(model, data, monkeypatch):
    expected = infer(model, data)
    seen: list[tuple[int, list[int]]] = []

    def function(number, trials):
        seen.append((number, trials))
        time.sleep(0.4 if number == 0 else 0.01)

    hinder(model, monkeypatch, function)
    assert infer(model, data, num_devices=2).identical(expected)
    counts = np.bincount([number for number, _ in seen])
    assert counts[0] < counts[1]
    assert sorted(trial for _, trials in seen for trial in trials) == list(range(13))


@pytest.mark.usefixtures("two_a_chunk")
def test_a_failing_replica_fails_all_and_leaves_no_file(model, data, monkeypatch, tmp_path):
    threads = set(threading.enumerate())

    def function(number, trials):
        if 6 in trials:
            raise ValueError("a defect of this trial")

    hinder(model, monkeypatch, function)
    with pytest.raises(ValueError, match="a defect of this trial"):
        infer(model, data, num_devices=2, path=str(tmp_path / "posterior.nc"))
    assert list(tmp_path.iterdir()) == []
    assert set(threading.enumerate()) <= threads
    assert model.training


@pytest.mark.usefixtures("two_a_chunk")
def test_an_interrupt_leaves_no_file_and_no_thread(model, data, monkeypatch, tmp_path):
    threads = set(threading.enumerate())

    class Terminated(BaseException):
        pass

    from seqvae.analysis.posterior_file import PosteriorWriter

    def write(self, values, *, lengths=None):
        raise Terminated

    monkeypatch.setattr(PosteriorWriter, "write", write)
    for num_devices in (1, 2):
        with pytest.raises(Terminated):
            infer(model, data, num_devices=num_devices, path=str(tmp_path / "posterior.nc"))
        assert list(tmp_path.iterdir()) == []
        assert set(threading.enumerate()) <= threads


@pytest.mark.usefixtures("two_a_chunk")
@pytest.mark.parametrize("error", NO_MEMORY, ids=range(len(NO_MEMORY)))
def test_out_of_memory_on_one_replica_gives_the_same(model, data, monkeypatch, error):
    expected = infer(model, data)

    def function(number, trials):
        if number == 1 and len(trials) > 1:
            raise error
        time.sleep(0.05 if number == 0 else 0)

    hinder(model, monkeypatch, function)
    with pytest.warns(UserWarning, match="2 trials at a time do not fit into memory") as caught:
        found = infer(model, data, num_devices=2)
    assert len(caught) == 1
    assert_same(found, expected)


def assert_same(found, expected):
    """Equal up to rounding of single precision: products may add up in another order.

    A standard deviation is that of numbers up to 15, with an error of their size.
    """
    assert list(found) == list(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("fitting", [1, 3, 5, 12])
def test_out_of_memory_halves_the_chunk_and_goes_on(model, data, monkeypatch, fitting):
    expected, sizes = infer(model, data), []

    def function(number, trials):
        sizes.append(len(trials))
        if len(trials) > fitting:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hinder(model, monkeypatch, function)
    with pytest.warns(UserWarning, match="13 trials at a time do not fit into memory") as caught:
        found = infer(model, data)
    assert len(caught) == 1
    assert_same(found, expected)
    assert sizes == {1: [13, 7, 4, 2, *[1] * 13], 3: [13, 7, 4, 2, 2, 2, 2, 2, 2, 1],
                     5: [13, 7, 4, 4, 4, 1], 12: [13, 7, 6]}[fitting]  # fmt: skip


@pytest.mark.parametrize("num_devices", [1, 2])
def test_a_trial_that_does_not_fit_is_refused_with_the_cure(
    model, data, monkeypatch, num_devices, tmp_path
):
    def function(number, trials):
        raise MemoryError

    hinder(model, monkeypatch, function)
    with (
        pytest.warns(UserWarning, match="do not fit"),
        pytest.raises(InputError, match="one trial does not fit into memory; use fewer num_sam"),
    ):
        infer(model, data, num_devices=num_devices, path=str(tmp_path / "posterior.nc"))
    assert list(tmp_path.iterdir()) == []


def test_other_errors_are_no_lack_of_memory():
    assert all(is_out_of_memory(error) for error in NO_MEMORY)
    for error in (RuntimeError("shapes cannot be multiplied"), ValueError("out of memory")):
        assert not is_out_of_memory(error)

    def fail(trials):
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        Halving(fail, cure="")(np.arange(4))


def test_what_a_failed_attempt_has_allocated_is_free_before_the_next():
    held: list[int] = []

    class Large:
        def __init__(self) -> None:
            held.append(1)

        def __del__(self) -> None:
            held.pop()

    def answer(trials):
        assert not held
        large = Large()
        if len(trials) > 2:
            raise MemoryError
        del large
        return len(trials)

    with pytest.warns(UserWarning, match="8 trials"):
        assert Halving(answer, cure="")(np.arange(8)) == [2, 2, 2, 2]


def test_work_in_order_is_bounded_and_parallel():
    begun, lock = [], threading.Lock()

    def work(chunk):
        with lock:
            begun.append(int(chunk[0]))
        return int(chunk[0])

    chunks = [np.array([number]) for number in range(40)]
    answers = in_order(chunks, [work, work, work])
    for number in range(40):
        assert next(answers) == number
        time.sleep(0.002)
        assert len(begun) <= number + 1 + 6
    assert next(answers, None) is None
    barrier = threading.Barrier(3)  # three at the same time, or it times out
    together = in_order(chunks[:3], [lambda chunk: barrier.wait(timeout=5)] * 3)
    assert sorted(together) == [0, 1, 2]


def test_no_more_chunks_are_begun_after_the_caller_has_stopped():
    threads = set(threading.enumerate())
    begun = []

    def work(chunk):
        begun.append(chunk)
        time.sleep(0.01)

    answers = in_order([np.array([number]) for number in range(40)], [work, work])
    next(answers)
    answers.close()
    count = len(begun)
    time.sleep(0.1)
    assert len(begun) == count < 8
    assert set(threading.enumerate()) <= threads


def test_a_replica_is_the_model_itself_or_a_copy(model):
    own, other = replicas(model, [CPU, CPU])
    assert own is model
    assert other is not model
    for one, two in zip(own.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        assert one.data_ptr() != two.data_ptr()


def test_devices_are_all_gpus_for_a_model_learned_by_gradients(model, data, monkeypatch):
    states = LinearDynamics(data.spec, latent_dim=2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert chosen_devices(model) == chosen_devices(states) == [CPU]
    with pytest.raises(InputError, match="devices is 1, but there is no GPU; use devices cpu"):
        chosen_devices(model, 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    gpus = [torch.device("cuda", index) for index in range(3)]
    assert chosen_devices(model) == gpus
    assert chosen_devices(states) == chosen_devices(model, "cpu") == [CPU]
    assert chosen_devices(model, 2) == chosen_devices(model, "2") == gpus[:2]
    for number in (0, 4, -1):
        with pytest.raises(InputError, match=f"is {number}, but there are 3 GPUs; use 1 to 3"):
            chosen_devices(model, number)
    with pytest.raises(InputError, match="devices must be 'auto', 'cpu' or a number of GPUs, got"):
        chosen_devices(model, "tpu")


def test_a_fitted_lightning_model_is_copied_without_its_trainer(data):
    from pytorch_lightning import Trainer

    model = VAE(data.spec, latent_dim=2)
    model.trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, barebones=False)
    _, other = replicas(model, [CPU, CPU])
    assert other._trainer is None
