"""What ``check`` says of a file of which it is told nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from layouts import COUNTS, LAYOUTS, WIDTH
from seqvae.config import from_config
from seqvae.console.flags import read_command
from seqvae.console.main import main
from seqvae.data import NeuralData
from seqvae.data.sources import Npz, Sessions
from seqvae.data.sources.base import RecordingSource
from seqvae.errors import InputError
from seqvae.verbs.check import check


def test_a_file_is_checked_and_a_config_written_by_its_name_alone(tmp_path, capsys) -> None:
    file = LAYOUTS["HDF5, nested"].write(tmp_path)
    config = tmp_path / "mine.yaml"
    assert main(["check", str(file), "--write_config", str(config)]) == 0
    out = capsys.readouterr().out
    assert "session/neural/spike_counts  24 x 15 x 8  uint8" in out
    assert "activity: 'session/neural/spike_counts', as" in out
    assert f"next: seqvae fit --config {config}" in out
    assert "neurons held out: 0" in out
    assert "heldout in the config: 0.2, as the file holds no neuron out" in out
    assert yaml.safe_load(config.read_text())["data"]["heldout"] == 0.2
    source = from_config(yaml.safe_load(config.read_text())["data"]["source"], RecordingSource)
    recording = source.load()
    np.testing.assert_array_equal(recording.read(), COUNTS)
    assert recording.bin_width == WIDTH
    assert recording.behavior is not None


def test_where_there_is_doubt_one_question_is_asked_and_the_file_is_shown(tmp_path) -> None:
    file, config = LAYOUTS["HDF5, two areas"].write(tmp_path), tmp_path / "mine.yaml"
    with pytest.raises(
        InputError, match=r"which is the activity, .*area_a.*area_b.* The file holds"
    ):
        check(str(file), write_config=str(config))
    assert not config.exists()


def test_a_config_that_is_there_is_kept(tmp_path) -> None:
    file, config = LAYOUTS["npz"].write(tmp_path), tmp_path / "mine.yaml"
    config.write_text("mine")
    with pytest.raises(InputError, match=r"write_config: .* is there already; name a new file"):
        check(str(file), write_config=str(config))
    assert config.read_text() == "mine"


def test_what_was_told_is_not_guessed(tmp_path: Path) -> None:
    from seqvae.data.sources import HDF5

    file = LAYOUTS["HDF5, two areas"].write(tmp_path)
    summary = check(HDF5(file, keys={"activity": "area_b"}, bin_width=WIDTH))
    assert not any(line.startswith("activity") for line in summary.get("guessed", []))


def test_a_yaml_file_that_stands_first_is_a_config(tmp_path, capsys) -> None:
    file, config = LAYOUTS["npz"].write(tmp_path), tmp_path / "mine.yaml"
    check(str(file), write_config=str(config))
    assert main(["check", str(config)]) == 0
    assert "values: counts" in capsys.readouterr().out


@pytest.fixture
def days(tmp_path: Path) -> dict[str, np.ndarray]:
    """Two sessions of files that are read alike, and one that says less."""
    spikes = {name: COUNTS[..., :number] for name, number in (("a", 5), ("b", 8), ("c", 6))}
    for name, counts in spikes.items():
        width = {} if name == "c" else {"bin_size": WIDTH}
        np.savez(tmp_path / f"{name}.npz", spikes=counts, **width)
    return spikes


def test_files_of_several_sessions_are_checked_and_a_config_written(days, tmp_path, capsys) -> None:
    config = tmp_path / "mine.yaml"
    files = [str(tmp_path / f"{name}.npz") for name in ("a", "b")]
    assert main(["check", *files, "--write_config", str(config)]) == 0
    out = capsys.readouterr().out
    assert "of a, the first of 2 sessions:" in out
    assert out.count("activity: 'spikes', as it holds counts, 24 x 15 x 5") == 1
    assert "a: 24 trials, 5 neurons" in out
    assert "b: 24 trials, 8 neurons" in out
    source = from_config(yaml.safe_load(config.read_text())["data"]["source"], RecordingSource)
    assert isinstance(source, Sessions)
    for one, name in zip(source.sources, ("a", "b"), strict=True):
        np.testing.assert_array_equal(one.load().read(), days[name])
        assert one.bin_width == WIDTH


def test_a_guess_that_is_not_made_in_all_sessions_names_those_it_is_made_in(days, tmp_path) -> None:
    files = [str(tmp_path / f"{name}.npz") for name in days]
    with pytest.raises(InputError, match=r"bin"):
        check(NeuralData(Sessions(files)))  # two say it, and one does not
    told = NeuralData(Sessions([*files[:2], Npz(files[2], bin_width=WIDTH)]))
    lines = check(told)["guessed"]
    assert [line.endswith(" (in a, b)") for line in lines] == [
        line.startswith("bin_width") for line in lines
    ]


def test_a_question_names_the_session_that_leaves_it(days, tmp_path) -> None:
    np.savez(tmp_path / "b.npz", first=COUNTS, second=COUNTS)
    with pytest.raises(InputError, match=r"^sources\[1\] \(.*b\.npz\): .*which is the activity"):
        check(str(tmp_path / "[ab].npz"))


def test_what_is_said_of_a_pattern_is_said_of_each_file(days, tmp_path) -> None:
    flags = {
        "data.source.path": str(tmp_path / "*.npz"),
        "data.source.keys": {"activity": "spikes"},
        "data.source.bin_width": WIDTH,
        "data.source.names": ["x", "y", "z"],
        "data.heldout": 0.2,
    }
    data = from_config(read_command(check, {}, flags)["data"], NeuralData)
    assert data.heldout == 0.2
    assert data.source == Sessions(
        [Npz(str(tmp_path / f"{name}.npz"), {"activity": "spikes"}, WIDTH) for name in days],
        names=["x", "y", "z"],
    )
    with pytest.raises(InputError, match=r"data\.source\.path: no file is named like '.*q\*"):
        read_command(check, {}, {"data.source.path": str(tmp_path / "q*.npz")})
    with pytest.raises(InputError, match=r"data\.source\.kes does not exist; did you mean 'keys'"):
        read_command(check, {}, {**flags, "data.source.kes": 3})


def test_a_file_named_like_a_pattern_is_one_file(days, tmp_path) -> None:
    (tmp_path / "a.npz").rename(tmp_path / "[ab].npz")
    read = read_command(check, {}, {"data.source.path": str(tmp_path / "[ab].npz")})
    assert from_config(read["data"], NeuralData).source == Npz(str(tmp_path / "[ab].npz"))
