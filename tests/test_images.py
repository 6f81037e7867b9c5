from __future__ import annotations

import gzip
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from seqvae import plotting
from seqvae.console.main import main
from seqvae.data import NeuralData
from seqvae.data.sources import Arrays, Images, from_path, read_idx
from seqvae.errors import InputError
from seqvae.learning.observers.figures import draw_figures
from seqvae.models import VAE
from seqvae.observations import Bernoulli


def pictures(number: int = 12, *, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(0, 256, (number, 4, 3)).astype(np.uint8)
    drawn[0, 0] = 127, 128, 255
    return drawn


def labels(number: int = 12) -> np.ndarray:
    return (np.arange(number) % 10).astype(np.uint8)


def write_idx(path: Path, values: np.ndarray, *, code: int = 8) -> Path:
    header = bytes([0, 0, code, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    content = header + values.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_hdf5_pictures(path: Path, **entries: np.ndarray) -> Path:
    with h5py.File(path, "w") as h:
        for name, value in entries.items():
            h[name] = value
    return path


def read(path: Path, **arguments) -> np.ndarray:
    return Images(path, **arguments).load().activity[:, 0]


@pytest.mark.parametrize("name", ["a-images-idx3-ubyte", "a-images-idx3-ubyte.gz"])
def test_idx_files_are_read_with_the_labels_beside_them(tmp_path, name):
    path = write_idx(tmp_path / name, pictures())
    assert Images(path).load().condition is None
    write_idx(tmp_path / name.replace("images-idx3", "labels-idx1"), labels())
    recording = Images(path).load()
    np.testing.assert_array_equal(read_idx(path), pictures())
    np.testing.assert_allclose(recording.activity[:, 0], pictures().reshape(12, 12) / 255)
    np.testing.assert_array_equal(recording.condition, labels())
    assert recording.image_shape == (4, 3)
    assert recording.bin_width is None
    assert recording.split is None
    assert isinstance(from_path(path), Images)


def test_idx_numbers_are_read_big_endian(tmp_path):
    values = np.array([[1.5, -2.0], [3.25, 4.0]])
    np.testing.assert_array_equal(
        read_idx(write_idx(tmp_path / "f", values.astype(">f4"), code=13)), values
    )
    whole = np.array([258, -3], dtype=">i2")
    np.testing.assert_array_equal(read_idx(write_idx(tmp_path / "i", whole, code=11)), whole)


def test_threshold_one_half_is_128_of_255(tmp_path):
    path = write_idx(tmp_path / "a", pictures())
    binary = read(path, threshold=0.5)
    np.testing.assert_array_equal(binary, (pictures().reshape(12, 12) >= 128).astype(float))
    np.testing.assert_array_equal(binary[0, :3], [0, 1, 1])


def test_a_folder_gives_training_and_test_pictures_and_the_last_sixth_validates(tmp_path):
    for word, number in (("train", 12), ("t10k", 5)):
        write_idx(tmp_path / f"{word}-images-idx3-ubyte.gz", pictures(number))
        write_idx(tmp_path / f"{word}-labels-idx1-ubyte.gz", labels(number))
    recording = Images(tmp_path).load()
    assert recording.split.tolist() == ["train"] * 10 + ["val"] * 2 + ["test"] * 5
    np.testing.assert_array_equal(recording.condition, [*labels(12), *labels(5)])


@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_archives_name_their_splits_as_is_usual(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    entries = {"x_train": pictures(), "y_train": labels(), "x_test": pictures(3, seed=1)}
    entries["y_test"] = labels(3)
    if kind == "npz":
        np.savez(path, **entries)
    else:
        write_hdf5_pictures(path, **entries)
    recording = Images(path).load()
    assert (recording.split == "test").sum() == 3
    np.testing.assert_allclose(recording.activity[12:, 0] * 255, entries["x_test"].reshape(3, 12))
    assert recording.image_shape == (4, 3)


def test_pictures_without_splits_other_names_and_grey_levels_up_to_one(tmp_path):
    grey = pictures().astype(np.float32) / 255
    np.savez(tmp_path / "a.npz", faces=grey.reshape(12, 12), who=labels())
    recording = Images(
        tmp_path / "a.npz", keys={"images": "faces", "labels": "who"}, image_shape=(4, 3)
    ).load()
    np.testing.assert_array_equal(recording.activity[:, 0], grey.reshape(12, 12))
    np.testing.assert_array_equal(recording.condition, labels())
    np.savez(tmp_path / "b.npz", images=np.zeros((3, 16)) + np.eye(16)[:3])
    assert Images(tmp_path / "b.npz").load().image_shape == (4, 4)


def test_the_shared_pictures_are_read_by_path_alone(shared_data):
    digits = Images(shared_data / "mnist_t10k.h5", threshold=0.5).load()
    assert digits.image_shape == (28, 28)
    assert set(np.unique(digits.activity)) == {0.0, 1.0}
    assert (digits.split == "train").sum() == 6400
    assert set(digits.condition) == set(range(10))
    faces = Images(shared_data / "freyfaces.h5").load()
    assert faces.image_shape == (28, 20)
    assert 0 <= faces.activity.min() < faces.activity.max() <= 1
    assert len(np.unique(faces.activity)) > 100


def bad_colour(path: Path) -> None:
    np.savez(path, images=np.zeros((3, 4, 4, 3)))


def bad_range(path: Path) -> None:
    np.savez(path, images=np.full((3, 4, 4), 300))


def bad_names(path: Path) -> None:
    np.savez(path, image_s=np.zeros((3, 4, 4)))


def bad_shape(path: Path) -> None:
    np.savez(path, images=np.zeros((3, 12)))


def bad_labels(path: Path) -> None:
    np.savez(path, images=np.zeros((3, 4, 4)), labels=np.arange(4))


def bad_objects(path: Path) -> None:
    np.savez(path, images=np.array([{"a": 1}], dtype=object))


def bad_idx(path: Path) -> None:
    write_idx(path, pictures())
    path.write_bytes(path.read_bytes()[:-1])


def bad_header(path: Path) -> None:
    path.write_bytes(bytes([0, 0, 8, 3, 0, 0, 0]))


def bad_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 1, 244]) + bytes(500))[:24])


def bad_text(path: Path) -> None:
    path.write_text("these are no pictures")


def bad_absence(path: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (bad_colour, "make colours grey first"),
        (bad_range, "pixels must be from 0 to 255, got 300 to 300"),
        (bad_names, "no entry 'x_train'"),
        (bad_shape, r"image_shape must be \(height, width\) of 12 pixels, got nothing"),
        (bad_labels, r"\(4,\) labels for pictures of shape \(3, 4, 4\)"),
        (bad_objects, "Python objects"),
        (bad_idx, "does not hold what it says"),
        (bad_header, "does not hold what it says"),
        (bad_gzip, "truncated or damaged"),
        (bad_text, "no IDX file"),
        (bad_absence, "does not exist"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path, make, sentence):
    path = tmp_path / "pictures.npz"
    make(path)
    with pytest.raises(InputError, match=sentence) as told:
        Images(path).load()
    assert "\n" not in str(told.value)


def test_bad_arguments_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="threshold must be above 0"):
        Images(tmp_path, threshold=128.0).load()
    with pytest.raises(InputError, match="keys names 'pictures'"):
        Images(tmp_path, keys={"pictures": "a"}).load()
    with pytest.raises(InputError, match="no file such as train-images"):
        Images(tmp_path).load()
    write_idx(tmp_path / "a", pictures())
    with pytest.raises(InputError, match="nowhere"):
        Images(tmp_path / "a", keys={"labels": "nowhere"}).load()


def test_figures_of_images_are_drawn_without_dropout(monkeypatch):
    pixels = np.random.default_rng(0).binomial(1, 0.5, (12, 1, 6)).astype(float)
    data = NeuralData(Arrays(pixels, image_shape=(2, 3)))
    data.setup()
    drawn = []
    monkeypatch.setattr(plotting, "image_manifold", lambda images, **_: drawn.append(images))
    torch.manual_seed(0)
    model = VAE(data.spec, latent_dim=2, dropout=0.5, observation=Bernoulli).train()
    for _ in range(2):
        draw_figures(model, data, [])
    assert model.training
    np.testing.assert_array_equal(*drawn)


def test_the_command_line_keeps_the_source_of_a_config(tmp_path, capsys):
    path = write_hdf5_pictures(tmp_path / "a.h5", x_train=pictures())
    config = Path(__file__).parent.parent / "configs" / "mnist_vae.yaml"
    assert main(["check", "--config", str(config), "--data.source.path", str(path)]) == 0
    assert "neurons held in: 12" in capsys.readouterr().out
    data = NeuralData(Images(path, threshold=0.5))
    data.setup()
    assert data.trials("val").tolist() == [10, 11]
