"""What every source promises; members are found by walking the family's folder."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import scipy.io
import torch
import yaml
from walk import members

import seqvae.data.sources
from nwb_files import nwb_file, write_nwb
from seqvae.config import from_config, to_config
from seqvae.config.signatures import parameters
from seqvae.data import Recording
from seqvae.data.sources import (
    HDF5,
    MAT,
    NWB,
    Arrays,
    Digits,
    Images,
    LimitCycle,
    Lorenz,
    Npy,
    Npz,
    RecordingSource,
    Sessions,
    SimulatedLinearDynamics,
    SpikeTimes,
    write_hdf5,
    write_npz,
)
from seqvae.errors import InputError

MEMBERS = members(seqvae.data.sources, RecordingSource)
READERS = [m for m in MEMBERS if "path" in getattr(m, "__dataclass_fields__", {})]
SERIES = ("activity", "inputs", "behavior", "rates")


class Example(NamedTuple):
    """How to make a source, and a setting that it refuses.

    Attributes:
        make: the source, from an empty folder that may hold its files.
        refused: a setting, by name, that cannot be.
    """

    make: Callable[[Path], RecordingSource]
    refused: tuple[str, object]


def recording() -> Recording:
    """Twelve trials with every series, labels, a split and a held-out neuron."""
    generator = np.random.default_rng(0)
    return Recording(
        generator.poisson(2.0, (12, 7, 5)),
        0.02,
        inputs=generator.standard_normal((12, 7, 2)),
        behavior=generator.standard_normal((12, 7, 3)),
        condition=np.array(["left", "right"] * 6),
        rates=generator.uniform(10, 90, (12, 7, 5)),
        split=np.repeat(["train", "val", "test"], 4),
        heldin=np.arange(4),
        num_encoded_bins=6,
    )


def hdf5(folder: Path) -> HDF5:
    write_hdf5(recording(), folder / "a.h5")
    return HDF5(str(folder / "a.h5"), bin_width=0.03)


def nwb(folder: Path) -> NWB:
    path = write_nwb(folder / "a.nwb", nwb_file(units={"heldout": [False] * 4 + [True]}))
    return NWB(str(path), 0.02, behavior={"velocity": "behavior/hand_vel"}, condition=["split"])


def npz(folder: Path) -> Npz:
    write_npz(recording(), folder / "a.npz")
    return Npz(str(folder / "a.npz"), keys={"activity": "activity"})


def images(folder: Path) -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 4, 3)).astype(np.uint8)
    np.savez(folder / "a.npz", pictures=pixels, names=np.arange(12))
    keys = {"images": "pictures", "labels": "names"}
    return Images(str(folder / "a.npz"), threshold=0.5, image_shape=(4, 3), keys=keys)


def npy(folder: Path) -> Npy:
    np.save(folder / "a.npy", recording().activity)
    return Npy(str(folder / "a.npy"), 0.02, dims=["trial", "time", "neuron"])


def mat(folder: Path) -> MAT:
    counts = recording().activity.transpose(2, 1, 0)
    scipy.io.savemat(folder / "a.mat", {"spikes": counts}, do_compression=True)
    dims = ["neuron", "time", "trial"]
    return MAT(str(folder / "a.mat"), keys={"activity": "spikes"}, dims=dims, bin_width=0.02)


def spike_times(folder: Path) -> SpikeTimes:
    times = np.random.default_rng(0).uniform(0, 2, 200)
    np.savez(folder / "a.npz", spike_times=times, neuron_ids=np.arange(200) % 5)
    return SpikeTimes(str(folder / "a.npz"), 0.02, intervals=[[0.0, 1.0], [1.0, 2.0]])


def sessions(folder: Path) -> Sessions:
    counts = np.random.default_rng(0).poisson(2.0, (2, 12, 7, 5))
    for name, activity in zip("ab", counts, strict=True):
        write_npz(Recording(activity, 0.02), folder / f"{name}.npz")
    return Sessions(str(folder / "*.npz"))


SIZES = {"num_trials": 12, "num_val": 3, "num_time_bins": 20, "num_neurons": 6, "num_heldout": 2}

EXAMPLES = {
    Arrays: Example(lambda _: Arrays(recording()), ("bin_width", -1.0)),
    Digits: Example(lambda _: Digits(threshold=0.25), ("threshold", 16.0)),
    HDF5: Example(hdf5, ("bin_width", -1.0)),
    Images: Example(images, ("threshold", 128.0)),
    LimitCycle: Example(
        lambda _: LimitCycle(**SIZES, mean_count=2.0, seed=3), ("attraction", -1.0)
    ),
    MAT: Example(mat, ("dims", ["neuron", "time"])),
    Npy: Example(npy, ("bin_width", -1.0)),
    SpikeTimes: Example(spike_times, ("bin_width", -1.0)),
    Lorenz: Example(lambda _: Lorenz(**SIZES, mean_count=2.0, seed=3), ("num_heldout", 6)),
    NWB: Example(nwb, ("window", (0.4, -0.2))),
    Npz: Example(npz, ("keys", {"activty": "activity"})),
    Sessions: Example(sessions, ("names", ["one"])),
    SimulatedLinearDynamics: Example(
        lambda _: SimulatedLinearDynamics(**SIZES, num_states=2, mean_count=2.0, seed=3),
        ("radius", 1.0),
    ),
}


def example_of(member: type) -> Example:
    """Return how to make a member; one without an example must not pass for tested."""
    if member not in EXAMPLES:
        pytest.fail(
            f"the source {member.__name__} has no example: add to EXAMPLES how it is made, and a "
            "setting that it refuses"
        )
    return EXAMPLES[member]


@pytest.fixture(scope="module", params=MEMBERS, ids=lambda member: member.__name__)
def example(request: pytest.FixtureRequest) -> Example:
    return example_of(request.param)


@pytest.fixture(scope="module")
def source(example: Example, tmp_path_factory: pytest.TempPathFactory) -> RecordingSource:
    return example.make(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def loaded(source: RecordingSource) -> Recording:
    return source.load()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is also where the process stands."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def arrays(recording: Recording) -> dict[str, np.ndarray]:
    values = {field.name: getattr(recording, field.name) for field in fields(recording)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def random_state() -> bytes:
    """Everything that numpy's own generator, which is everybody's, draws from."""
    return pickle.dumps(np.random.get_state())  # noqa: NPY002 (it is this one that must rest)


def assert_refused_in_a_sentence(load: Callable[[], object], *words: str) -> None:
    with pytest.raises(InputError) as refusal:
        load()
    sentence = str(refusal.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence


@pytest.fixture(autouse=True)
def loaded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere in the tests a simulation is kept."""
    monkeypatch.setattr(Lorenz, "load", inspect.unwrap(Lorenz.load))


def test_the_walk_finds_the_members() -> None:
    assert {HDF5, Npz, Images, Arrays, Lorenz, Digits} <= set(MEMBERS)


def test_every_example_is_one_of_a_member() -> None:
    assert set(EXAMPLES) <= set(MEMBERS)


def test_every_member_is_a_public_name_of_the_family(source: RecordingSource) -> None:
    assert getattr(seqvae.data.sources, type(source).__name__) is type(source)


def test_every_member_is_a_frozen_dataclass(source: RecordingSource) -> None:
    assert is_dataclass(source)
    for field in fields(source):
        with pytest.raises(FrozenInstanceError):
            setattr(source, field.name, None)


def test_a_source_gives_the_same_recording_again_and_leaves_the_callers_randomness_alone(
    source: RecordingSource, loaded: Recording
) -> None:
    state, torch_state = random_state(), torch.get_rng_state()
    assert source.load().checksum == loaded.checksum
    assert random_state() == state
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_a_recording_cannot_be_changed_and_its_series_are_in_single_precision(
    loaded: Recording,
) -> None:
    for name, array in arrays(loaded).items():
        assert not array.flags.writeable, name
        assert name not in SERIES or array.dtype == np.float32, name


def test_loading_writes_no_file(example: Example, folder: Path) -> None:
    source = example.make(folder)
    before = contents(folder)
    source.load()
    assert contents(folder) == before


def test_a_config_names_a_source_and_gives_an_equal_one(source: RecordingSource) -> None:
    tree = to_config(source)
    assert set(parameters(type(source))) == {field.name for field in fields(source)}
    if isinstance(source, Arrays):
        assert tree is None  # a config holds no data
        return
    tree = yaml.safe_load(yaml.safe_dump(tree))
    assert tree["class_path"] == f"seqvae.data.sources.{type(source).__name__}"
    told = {name: one.tells_default for name, one in parameters(type(source)).items()}
    assert (
        {name for name, is_told in told.items() if is_told} <= set(tree["init_args"]) <= set(told)
    )
    assert from_config(tree, RecordingSource) == source


def test_a_source_travels_to_another_process(source: RecordingSource) -> None:
    twin = pickle.loads(pickle.dumps(source))
    if isinstance(source, Arrays):  # arrays have no one truth value, so neither has an equality
        assert twin.load().checksum == source.load().checksum
    else:
        assert twin == source


def test_a_setting_that_cannot_be_is_refused_in_one_sentence_that_names_it(
    example: Example, folder: Path
) -> None:
    source = example.make(folder)
    before = contents(folder)
    name, value = example.refused
    assert_refused_in_a_sentence(lambda: replace(source, **{name: value}).load(), name)
    assert contents(folder) == before


def missing(folder: Path) -> Path:
    return folder / "nowhere"


def empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def empty_file(folder: Path) -> Path:
    (folder / "empty").touch()
    return folder / "empty"


def text(folder: Path) -> Path:
    (folder / "a.txt").write_text("trial,neuron\n1,2\n")
    return folder / "a.txt"


def cut_short(folder: Path) -> Path:
    (whole,) = folder.iterdir()
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    return whole


@pytest.mark.parametrize("make_path", [missing, empty_folder, empty_file, text, cut_short])
@pytest.mark.parametrize("member", READERS, ids=lambda member: member.__name__)
def test_a_bad_path_is_refused_in_one_sentence_that_names_field_and_path(
    member: type, make_path: Callable[[Path], Path], folder: Path
) -> None:
    source = example_of(member).make(folder)
    path = make_path(folder)
    before = contents(folder)
    bad = replace(source, path=str(path))  # type: ignore[type-var]
    assert_refused_in_a_sentence(bad.load, "source.path", repr(str(path)))
    assert contents(folder) == before
