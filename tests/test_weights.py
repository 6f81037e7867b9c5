from __future__ import annotations

import os
import pickle

import pytest
import torch
from torch import nn

from seqvae.errors import InputError
from seqvae.storage.weights import FORMAT, load_weights, save_weights


class Code:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_weights_come_back_bit_for_bit(tmp_path):
    one, other = nn.GRU(3, 4), nn.GRU(3, 4)
    save_weights(tmp_path / "w.pt", one, step=7, score=-1.5)
    load_weights(tmp_path / "w.pt", other)
    for name, weight in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], weight)
    content = torch.load(tmp_path / "w.pt", weights_only=True)
    assert (content["step"], content["score"]) == (7, -1.5)


def test_failed_writing_keeps_old_weights(tmp_path, monkeypatch):
    save_weights(tmp_path / "w.pt", nn.Linear(2, 2), step=1, score=0.0)
    old = (tmp_path / "w.pt").read_bytes()

    def full_disk(content, file):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_weights(tmp_path / "w.pt", nn.Linear(2, 2), step=2, score=1.0)
    assert (tmp_path / "w.pt").read_bytes() == old
    assert len(list(tmp_path.iterdir())) == 1


def test_missing_weights_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist: the run has saved no weights yet"):
        load_weights(tmp_path / "w.pt", nn.Linear(2, 2))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_weights_are_refused(tmp_path, share):
    path = tmp_path / "w.pt"
    save_weights(path, nn.Linear(30, 30), step=1, score=0.0)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"w\.pt cannot be read: it is truncated or not a file"):
        load_weights(path, nn.Linear(30, 30))


def save_by_pickle(value, path):
    path.write_bytes(pickle.dumps(value))


@pytest.mark.parametrize("save", [torch.save, save_by_pickle])
def test_pickled_code_is_refused_and_not_run(tmp_path, save):
    path = tmp_path / "w.pt"
    save({"format": FORMAT, "state_dict": Code(f"touch {tmp_path / 'ran'}")}, path)
    with pytest.raises(InputError, match="cannot be read"):
        load_weights(path, nn.Linear(2, 2))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"state_dict": {}}, "is not a weights file of seqvae"),
        ([1, 2], "is not a weights file of seqvae"),
        ({"format": "seqvae weights 99", "state_dict": {}}, "expected format 'seqvae weights 1'"),
        ({"format": FORMAT}, "holds no weights"),
        ({"format": FORMAT, "state_dict": {"weight": 3}}, "holds no weights"),
        ({"format": FORMAT, "state_dict": {"wait": torch.ones(2, 2)}},
         "has no weight 'weight'; did you mean 'wait'"),
        ({"format": FORMAT, "state_dict": {"weight": torch.ones(2, 3), "bias": torch.ones(2)}},
         r"weight 'weight' has shape \(2, 3\), but the model needs \(2, 2\)"),
        ({"format": FORMAT, "state_dict": {**nn.Linear(2, 2).state_dict(), "x": torch.ones(1)}},
         "has a weight 'x' that the model does not know"),
    ],
)  # fmt: skip
def test_foreign_weights_are_refused_and_the_model_stays(tmp_path, content, words):
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(InputError, match=words):
        load_weights(tmp_path / "w.pt", model)
    assert torch.equal(model.weight, before)
