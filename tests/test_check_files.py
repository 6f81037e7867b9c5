"""What ``check`` says of a file of which it is told nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from layouts import COUNTS, LAYOUTS, WIDTH
from seqvae.config import from_config
from seqvae.console.main import main
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
