from __future__ import annotations

import numpy as np
import pytest

from seqvae import plotting

TIME = 30


def test_regions_of_the_aggregate_posterior_are_the_rings_of_an_equal_prior():
    prior = {"prior_mean": np.array([1.0, 0.0]), "prior_sd": np.array([1.0, 2.0])}
    samples = np.random.default_rng(0).normal(size=(200, 2000, 2))
    axes = plotting.aggregate_posterior(
        prior["prior_mean"] + prior["prior_sd"] * samples, **prior
    ).axes[0]
    rings = axes.patches
    np.testing.assert_allclose(rings[1].width, 2 * np.sqrt(2 * np.log(10)))
    np.testing.assert_allclose(rings[1].height, 4 * np.sqrt(2 * np.log(10)))
    (contours,) = (found for found in axes.collections if hasattr(found, "levels"))
    found = contours.get_paths()[1].get_extents()  # levels rise: 99, 90, 50 %
    assert found.width == pytest.approx(rings[1].width, rel=0.08)
    assert found.height == pytest.approx(rings[1].height, rel=0.08)


def test_marginals_of_the_most_active_latents_stand_beside_the_prior():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(300, 3)) * np.array([0.1, 2.0, 1.0])
    samples = 5 + 3 * (means + 0.01 * rng.normal(size=(20, 300, 3)))
    figure = plotting.aggregate_posterior(
        samples, prior_mean=np.full(3, 5.0), prior_sd=np.full(3, 3.0)
    )
    titles = [axes.get_title() for axes in figure.axes]
    assert [title.split(" (")[0] for title in titles] == ["latent 2", "latent 3", "latent 1"]
    assert titles[1] == f"latent 3 (variance of means {np.var(means[:, 2]):.2f})"


def test_posteriors_are_lines_over_the_bands_of_the_reference():
    rng = np.random.default_rng(0)
    model = [np.sort(rng.normal(size=(5, TIME, 4)), axis=0) for _ in range(2)]
    reference = [np.sort(rng.normal(size=(5, TIME, 4)), axis=0) for _ in range(2)]
    figure = plotting.posterior_comparison(
        model, reference, titles=["trial 3", "trial 8"], label="latent", bin_width=0.02
    )
    assert len(figure.axes) == 6
    axes = figure.axes[3]  # latent 2 of the second trial
    outer, inner = (band.get_paths()[0].get_extents() for band in axes.collections)
    np.testing.assert_allclose(
        [outer.y0, outer.y1], [reference[1][..., 1].min(), reference[1][..., 1].max()]
    )
    assert outer.height > inner.height
    drawn = [line.get_ydata() for line in axes.lines]
    for level in range(5):
        assert any(np.array_equal(line, model[1][level, :, 1]) for line in drawn)
    assert any(np.array_equal(line, reference[1][2, :, 1]) for line in drawn)
    assert figure.axes[2].get_ylabel() == "latent 2"
    assert figure.axes[5].get_xlabel() == "time (s)"


def test_posteriors_without_time_are_bars_relative_to_the_reference():
    levels = np.array([-1.645, -0.674, 0.0, 0.674, 1.645])
    reference = 3 + 2 * levels[:, None] * np.ones(4)
    figure = plotting.posterior_comparison(
        [reference + 2.0], [reference], titles=["trial 3"], label="initial condition"
    )
    (axes,) = figure.axes
    model, truth = axes.lines
    np.testing.assert_allclose(model.get_ydata(), 1.0, rtol=1e-4)
    np.testing.assert_allclose(truth.get_ydata(), 0.0)
    assert "reference sd" in axes.get_ylabel()
    assert list(axes.get_xticks()) == [1, 2, 3, 4]


def test_calibration_shows_shares_errors_and_the_level_line():
    shares = {"latent": np.array([0.3, 0.2, 0.2, 0.3]), "other": np.full(4, 0.25)}
    errors = {name: np.full(4, 0.01) for name in shares}
    figure = plotting.rank_histograms(shares, errors, {"latent": 0.001, "other": 0.5})
    assert [axes.get_title() for axes in figure.axes] == ["latent, p = 0.001", "other, p = 0.5"]
    for axes in figure.axes:
        assert 0.25 in [line.get_ydata()[0] for line in axes.lines]
    segments = figure.axes[0].collections[0].get_segments()
    np.testing.assert_allclose(segments[0][:, 1], [0.28, 0.32])
