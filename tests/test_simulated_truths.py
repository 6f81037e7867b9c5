from __future__ import annotations

import numpy as np

from seqvae.data import Recording
from seqvae.data.sources import Images, Lorenz, Npz


def test_true_rates_of_a_split_file_are_counts_per_bin_unless_it_has_a_factor(tmp_path):
    generator = np.random.default_rng(0)
    activity, truth = generator.poisson(2.0, (9, 8, 5)), generator.uniform(0.5, 2.0, (9, 8, 5))
    entries = {
        "train_recon_data": activity[:6], "valid_recon_data": activity[6:],
        "train_encod_data": activity[:6], "valid_encod_data": activity[6:],
        "train_truth": truth[:6], "valid_truth": truth[6:],
        "bin_width_s": np.array(0.01),
    }  # fmt: skip
    np.savez(tmp_path / "plain.npz", **entries)
    np.savez(tmp_path / "factor.npz", **entries, conversion_factor=np.array(0.2))
    plain, factor = (Npz(tmp_path / f"{name}.npz").load().rates for name in ("plain", "factor"))
    np.testing.assert_allclose(plain, truth / 0.01, rtol=1e-6)
    np.testing.assert_allclose(factor, 0.2 * truth / 0.01, rtol=1e-6)


def test_lorenz_obeys_all_three_equations():
    """Of standardised coordinates the velocities have the coefficients -10, -1 and -8/3, too."""
    recording = Lorenz(num_trials=40, num_val=5, bin_width=0.0005, num_time_bins=400).load()
    path, step = recording.behavior.astype(np.float64), 6.0 * 0.0005
    velocity = ((path[:, 2:] - path[:, :-2]) / (2 * step)).reshape(-1, 3)
    one, two, three = path[:, 1:-1].reshape(-1, 3).T
    constant = np.ones_like(one)
    for own, product, coefficient in (
        (0, one, -10.0),
        (1, one * three, -1.0),
        (2, one * two, -8 / 3),
    ):
        terms = [one, two, three, constant] + ([product] if own else [])
        design = np.column_stack(terms)
        weights, residual, *_ = np.linalg.lstsq(design, velocity[:, own], rcond=None)
        assert residual[0] / (velocity[:, own] ** 2).sum() < 1e-4
        np.testing.assert_allclose(weights[own], coefficient, rtol=0.01)


def test_lorenz_trials_begin_on_the_attractor():
    """There the first two coordinates go together at the first bin as much as at the last."""
    path = Lorenz(num_trials=1500, num_val=5, num_time_bins=60, num_neurons=2, num_heldout=0).load()
    first, last = (path.behavior[:, t, :2].astype(np.float64) for t in (0, -1))
    found, expected = np.corrcoef(first.T)[0, 1], np.corrcoef(last.T)[0, 1]
    assert abs(found - expected) < 0.04
    np.testing.assert_allclose(first.std(0), last.std(0), rtol=0.06)


def test_labels_of_bytes_are_read_as_text():
    words = np.array(["réach", "grasp", "réach"])
    recording = Recording(
        np.eye(12).reshape(3, 4, 12), 0.02, condition=np.char.encode(words, "utf-8")
    )
    assert recording.condition.tolist() == words.tolist()


def test_pictures_with_one_channel_are_those_without_an_axis_for_it(tmp_path):
    drawn = np.random.default_rng(0).integers(0, 256, (7, 4, 3)).astype(np.uint8)
    expected = None
    for name, pictures in (("none", drawn), ("last", drawn[..., None]), ("first", drawn[:, None])):
        np.savez(tmp_path / f"{name}.npz", x_train=pictures)
        found = Images(tmp_path / f"{name}.npz").load()
        assert tuple(found.image_shape) == (4, 3)
        expected = found.activity if expected is None else expected
        np.testing.assert_array_equal(found.activity, expected)
