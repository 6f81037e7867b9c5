from __future__ import annotations

import sys

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from seqvae import plotting
from seqvae.analysis.posterior_file import PosteriorWriter
from seqvae.plotting.arrangement import conditions_of, on_event_time
from seqvae.plotting.style import category_colors

TRIALS, TIME, NEURONS, FACTORS = 12, 30, 8, 5
HELDIN = np.arange(NEURONS) % 4 != 0


def results(*, kind: str = "rates", num_factors: int = FACTORS) -> xr.Dataset:
    rng = np.random.default_rng(0)
    center = np.linspace(0, TIME, NEURONS)
    bump = np.exp(-0.5 * ((np.arange(TIME)[:, None] - center) / 3) ** 2)
    expected = 40 * bump * rng.uniform(0.8, 1.2, (TRIALS, 1, 1)) + 1
    writer = PosteriorWriter(
        trial=100 + np.arange(TRIALS),
        neuron=np.arange(NEURONS),
        num_time_bins=TIME,
        bin_width=0.02,
        coordinates={
            "heldin": ("neuron", HELDIN),
            "condition": ("trial", np.arange(TRIALS) % 3),
        },
    )
    lengths = np.full(TRIALS, TIME)
    lengths[5] = 20
    scales = np.array([5.0, 3.0, 2.0, 1.0, 0.5])[:num_factors]
    counts = np.random.default_rng(1).poisson(expected * 0.02).astype(np.float32)
    with writer as out:
        out.write(
            {
                "activity": counts if kind == "rates" else expected + 1,
                kind: expected,
                f"{kind}_sd": 0.1 * expected,
                "factors": rng.normal(size=(TRIALS, TIME, num_factors)) * scales,
                "inferred_inputs_mean": rng.normal(size=(TRIALS, TIME, 2)),
                "inferred_inputs_sd": rng.uniform(0.1, 0.2, (TRIALS, TIME, 2)),
            },
            lengths=lengths,
        )
    return out.dataset()


def with_truth(data: xr.Dataset, truth: np.ndarray) -> xr.Dataset:
    return data.assign(true_rates=(data.rates.dims, truth))


def images_of(figure: Figure) -> list:
    return [axes.images[0] for axes in figure.axes if axes.images]


def history(num_rows: int = 40) -> list[dict[str, float | str]]:
    steps = 25.0 * (np.arange(num_rows) + 1)
    return [
        {
            "epoch": float(row),
            "step": step,
            "train/elbo": -100 - 50 * np.exp(-step / 100),
            "val/elbo": "" if row % 2 else -105 - 50 * np.exp(-step / 100),
            "train/kl/z": 3.0,
            "val/co_bps": 0.2,
            "train/beta": min(1.0, step / 500),
            "train/learning_rate": 0.004 if step < 600 else 0.002,
        }
        for row, step in enumerate(steps)
    ]


def test_every_figure_is_saved_at_150_dots_per_inch_without_pyplot(tmp_path):
    data = results()
    pictures = [
        plotting.rasters_and_rates(with_truth(data, data.rates.values)),
        plotting.rate_traces(with_truth(data, data.rates.values)),
        plotting.latents(data),
        plotting.inferred_inputs(data),
        plotting.learning_curves(history()),
    ]
    for picture in pictures:
        picture.savefig(tmp_path / "picture.png")
        assert (tmp_path / "picture.png").stat().st_size > 5000
        assert picture.dpi == 150
    assert all(
        "pyplot" not in vars(module)
        for name, module in sys.modules.items()
        if name.startswith("seqvae.plotting")
    )


def test_rasters_show_the_counts_and_the_rates_of_the_same_trial_and_order():
    data = results()
    activity = data.activity.values
    figure = plotting.rasters_and_rates(data, trials=[2, 7])
    recorded, inferred = images_of(figure)[:4:2], images_of(figure)[2:4]
    raster, rates = images_of(figure)[0], images_of(figure)[2]
    order = [1, 2, 3, 5, 6, 7, 0, 4]
    np.testing.assert_allclose(raster.get_array(), activity[2][:, order].T)
    np.testing.assert_allclose(rates.get_array(), data.rates.values[2][:, order].T)
    assert rates.get_extent() == pytest.approx((0.0, 0.6, 0.5, 8.5))
    assert len(recorded) == len(inferred) == 2
    assert [axes.get_title() for axes in figure.axes[:2]] == ["trial 102", "trial 107"]
    assert figure.axes[2].get_xlabel() == "time (s)"
    assert {"spikes per bin", "rate (Hz)"} <= {axes.get_ylabel() for axes in figure.axes}


def test_rasters_mark_the_rows_of_heldout_neurons():
    data = results()
    figure = plotting.rasters_and_rates(data, trials=[0])
    bars = [line for axes in figure.axes for line in axes.lines if line.get_label() == "held out"]
    assert len(bars) == 2
    assert list(bars[0].get_ydata()) == [6.5, 8.5]
    everyone_seen = plotting.rasters_and_rates(data.drop_vars("heldin"), trials=[0])
    assert not any(axes.lines for axes in everyone_seen.axes)


def test_true_and_inferred_rates_share_one_colour_scale():
    data = results()
    figure = plotting.rasters_and_rates(with_truth(data, 3 * data.rates.values), trials=[0])
    _, inferred, true = images_of(figure)[:3]
    assert inferred.get_clim() == true.get_clim()


def test_traces_show_mean_band_truth_and_spikes():
    data = results()
    activity = data.activity.values
    truth = data.rates.values + 1
    figure = plotting.rate_traces(with_truth(data, truth), trials=[3], neurons=[4, 5])
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), data.rates.values[3, :, 4])
    np.testing.assert_allclose(axes.lines[1].get_ydata(), truth[3, :, 4])
    np.testing.assert_allclose(axes.lines[0].get_xdata(), (np.arange(TIME) + 0.5) * 0.02)
    band, spikes = axes.collections
    upper = band.get_paths()[0].vertices[:, 1].max()
    assert upper == pytest.approx(1.1 * data.rates.values[3, :, 4].max(), rel=1e-5)
    assert len(spikes.get_segments()) == (activity[3, :, 4] > 0).sum()
    assert axes.get_ylabel() == "neuron 4\n(held out)"
    assert figure.axes[1].get_ylabel() == "neuron 5"
    assert figure.get_supylabel() == "rate (Hz)"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["inferred", "posterior sd", "true", "spikes"]


def test_real_valued_data_are_dots_in_data_units():
    data = results(kind="mean")
    activity = data.activity.values
    figure = plotting.rate_traces(data, trials=[0], neurons=[1])
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), activity[0, :, 1])
    assert figure.get_supylabel() == "activity (data units)"
    heat = plotting.rasters_and_rates(data, trials=[0])
    assert len(images_of(heat)) == 2
    assert heat.axes[-1].get_ylabel() == "activity (data units)"


def test_trajectories_are_principal_components_coloured_by_condition():
    data = results()
    figure = plotting.latents(data)
    axes, plane = figure.axes
    single = [line for line in axes.lines if line.get_label() != "mean"]
    means = [line for line in axes.lines if line.get_label() == "mean"]
    paths, starts = single[0::2], single[1::2]
    assert len(paths) == len(starts) == TRIALS
    assert len(means) == 3
    assert len(plane.lines) == len(axes.lines)
    assert plane.get_aspect() == 1.0
    edges = np.diff([axes.get_xlim(), axes.get_ylim(), axes.get_zlim()])[:, 0]
    np.testing.assert_allclose(edges / edges[0], axes._box_aspect / axes._box_aspect[0])
    spread = np.nanstd(
        [path.get_data_3d() for path in paths if len(path.get_data_3d()[0]) == TIME], axis=(0, 2)
    )
    np.testing.assert_allclose(spread, [5.0, 3.0, 2.0], rtol=0.1)
    for path, start in zip(paths, starts, strict=True):
        np.testing.assert_allclose(
            np.ravel(start.get_data_3d()), np.array(path.get_data_3d())[:, 0]
        )
    assert len(paths[5].get_data_3d()[0]) == 20
    colors = [path.get_color() for path in paths]
    assert colors[0] == colors[3] != colors[1]
    assert axes.get_xlabel().startswith("PC 1 (6")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0", "1", "2"]
    figure.draw_without_rendering()
    assert np.isfinite(axes.get_position().bounds).all()


def test_unknown_and_worded_conditions_are_coloured():
    data = results().drop_vars("condition")
    unknown = data.assign_coords(condition=("trial", np.array([0.0, 1.0, np.nan] * 4)))
    axes = plotting.latents(unknown).axes[0]
    assert len({path.get_color() for path in axes.lines[0::2]}) == 3
    left = data.assign_coords(condition=("trial", np.array(["left", "right"] * 6)))
    words = plotting.latents(left)
    assert [text.get_text() for text in words.legends[0].get_texts()] == ["left", "right"]
    assert not plotting.latents(data).legends


@pytest.mark.parametrize("num_factors", [1, 2])
def test_few_factors_are_shown_over_time(num_factors):
    panels = plotting.latents(results(num_factors=num_factors)).axes
    assert len(panels) == num_factors
    assert panels[-1].get_xlabel() == "time (s)"
    assert panels[0].get_aspect() == (1.0 if num_factors == 2 else "auto")


def test_data_without_time_are_drawn_as_points(tmp_path):
    data = results().isel(time=[0])
    for figure in (
        plotting.rasters_and_rates(data),
        plotting.rate_traces(data),
        plotting.latents(data),
    ):
        figure.savefig(tmp_path / "picture.png")
    lines = plotting.latents(data.drop_vars("condition")).axes[0].lines[1::2]
    assert len(lines) == TRIALS
    assert {line.get_marker() for line in lines} == {"o"}


def test_inferred_inputs_show_trials_and_the_means_of_conditions():
    data = results()
    figure = plotting.inferred_inputs(data, trials=[1, 2])
    left, right = figure.axes[2:4]
    expected = data.inferred_inputs_mean.values
    np.testing.assert_allclose(left.lines[1].get_ydata(), expected[2, :, 1])
    for condition in range(3):
        members = expected[data.condition.values == condition][..., 1]
        drawn = right.lines[condition].get_ydata()
        np.testing.assert_allclose(drawn, np.nanmean(members, 0), rtol=1e-5)
    whole = plotting.inferred_inputs(data.drop_vars("condition")).axes[3]
    np.testing.assert_allclose(
        whole.lines[0].get_ydata(), np.nanmean(expected[..., 1], 0), rtol=1e-5
    )
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == [
        "inferred input 1",
        "inferred input 2",
    ]
    assert left.get_xlabel() == "time (s)"


def test_psth_is_the_mean_of_each_condition_recorded_beside_inferred():
    data = results()
    figure = plotting.psth(data, neurons=[1, 4], smoothing_sd=0.0)
    recorded, inferred = figure.axes[2:]
    for condition in range(3):
        members = data.condition.values == condition
        for axes, values in ((recorded, data.activity / 0.02), (inferred, data.rates)):
            mean = np.nanmean(values.values[members, :, 4], 0)
            np.testing.assert_allclose(axes.lines[condition].get_ydata(), mean, rtol=1e-5)
    assert recorded.get_ylabel() == "neuron 4\n(held out)"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0", "1", "2"]
    alone = plotting.psth(data.drop_vars("condition"))
    assert len(alone.axes[0].lines) == 1
    assert not alone.legends


def test_a_condition_of_many_numbers_is_a_quantity_in_fifths():
    interval = np.linspace(100, 300, 30)
    data = xr.Dataset(coords={"trial": np.arange(30), "condition": ("trial", interval)})
    groups = conditions_of(data)
    assert len(groups.names) == 5
    assert np.bincount(groups.group).tolist() == [6] * 5
    assert groups.names[0] == "100 to 140"


def test_titles_tell_model_split_and_score():
    data = results().assign_coords(split=("trial", np.array(["val"] * TRIALS)))
    data.attrs |= {"model": "SequentialVAE", "score": "co_bps 0.250"}
    for draw in (plotting.rasters_and_rates, plotting.rate_traces, plotting.latents,
                 plotting.psth, plotting.inferred_inputs):  # fmt: skip
        title = draw(data).get_suptitle()
        assert title == f"SequentialVAE, {TRIALS} validation trials, co_bps 0.250"


def test_time_zero_is_the_event_where_trials_differ_in_it():
    data = results()
    place = np.arange(TRIALS) % 5 + 2
    data = data.assign_coords(event_time=("trial", (place + 0.5) * 0.02))
    data.attrs["event_name"] = "cue"
    shifted = on_event_time(data)
    zero = shifted.time.values.tolist().index(0.0)
    rates = shifted.rates.values[np.arange(TRIALS), zero]
    np.testing.assert_array_equal(rates, data.rates.values[np.arange(TRIALS), place])
    assert shifted.sizes["time"] == TIME + 4
    assert np.isnan(shifted.rates.values[0, 0]).all()
    figure = plotting.psth(data)
    assert figure.axes[-1].get_xlabel() == "time from cue (s)"
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "event"]
    assert line.get_xdata() == [0, 0]


def test_a_notebook_shows_a_figure_without_pyplot():
    picture = plotting.psth(results())._repr_png_()
    assert picture.startswith(b"\x89PNG")


def test_a_posterior_without_activity_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="carries no 'activity'; infer it again"):
        plotting.psth(results().drop_vars("activity"))


def test_learning_curves_hold_the_rows_and_shade_the_warm_up():
    rows = history()
    figure = plotting.learning_curves(rows)
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "ELBO (nats per trial)",
        "KL (nats per trial)",
        "bits per spike",
        "learning rate",
    ]
    train, val = figure.axes[0].lines
    np.testing.assert_allclose(train.get_xdata(), [row["step"] for row in rows])
    assert len(val.get_xdata()) == len(rows) // 2
    assert train.get_color() == val.get_color()
    assert train.get_linestyle() != val.get_linestyle()
    for axes in figure.axes:
        (shade,) = axes.patches
        assert shade.get_x() + shade.get_width() == 475.0
    assert figure.axes[0].texts[0].get_text() == "warm-up"
    assert figure.axes[3].get_yscale() == "log"


def test_learning_curves_read_the_strings_of_a_csv_file():
    rows = [{name: str(value) for name, value in row.items()} for row in history()]
    train, _ = plotting.learning_curves(rows).axes[0].lines
    np.testing.assert_allclose(train.get_ydata(), [row["train/elbo"] for row in history()])


def test_learning_curves_without_warm_up_or_scores_have_fewer_panels():
    rows = [{"step": 10.0 * row, "train/elbo": -1.0 * row} for row in range(1, 5)]
    figure = plotting.learning_curves(rows)
    assert len(figure.axes) == 1
    assert not figure.axes[0].patches
    assert len(plotting.learning_curves([]).axes) == 0


def test_a_learning_rate_that_does_not_change_has_no_panel():
    constant = [{**row, "train/learning_rate": 0.004} for row in history()]
    labels = [axes.get_ylabel() for axes in plotting.learning_curves(constant).axes]
    assert labels == ["ELBO (nats per trial)", "KL (nats per trial)", "bits per spike"]


def test_a_curve_of_one_point_is_a_dot():
    rows = [{"step": step, "train/elbo": -9.0 + step} for step in range(3)]
    rows[-1]["val/elbo"] = -8.0
    train, val = plotting.learning_curves(rows).axes[0].lines
    assert train.get_marker() in ("", "None")
    assert val.get_marker() == "o"


def test_learning_curves_of_em_count_iterations():
    rows = [{"step": step, "bound": -9.0, "train/elbo": -9.0 + step} for step in range(3)]
    assert plotting.learning_curves(rows).axes[0].get_xlabel() == "iteration"
    rows = [{"step": step, "train/elbo": -9.0 + step} for step in range(3)]
    assert plotting.learning_curves(rows).axes[0].get_xlabel() == "step"


def test_manifold_puts_each_image_at_its_latent_values():
    images = np.arange(2 * 3 * 4 * 5, dtype=float).reshape(2, 3, 4, 5)
    figure = plotting.image_manifold(
        images, first=np.array([-2.0, 0.0, 2.0]), second=np.array([-1.0, 1.0])
    )
    axes = figure.axes[0]
    mosaic = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_array_equal(mosaic[:4, :5], images[1, 0])
    np.testing.assert_array_equal(mosaic[5:9, 12:17], images[0, 2])
    assert np.isnan(mosaic[4]).all()  # the gap
    ticks = dict(
        zip(axes.get_xticks(), [t.get_text() for t in axes.get_xticklabels()], strict=True)
    )
    assert ticks[3.0] == "-2.0"
    assert ticks[15.0] == "2.0"


def test_reconstructions_stand_under_their_data_on_one_scale():
    data = np.random.default_rng(0).uniform(size=(5, 12))
    figure = plotting.reconstructions(data, 1 - data, image_shape=(4, 3), at_most=3)
    pictures = images_of(figure)
    assert len(pictures) == 6
    np.testing.assert_array_equal(pictures[1].get_array(), data[1].reshape(4, 3))
    np.testing.assert_array_equal(pictures[4].get_array(), 1 - data[1].reshape(4, 3))
    assert len({picture.get_clim() for picture in pictures}) == 1


def test_scatter_names_classes_and_scales_quantities():
    latents = np.random.default_rng(0).normal(size=(90, 2))
    classes = np.array(["a", "b", "c"])[np.arange(90) % 3]
    axes = plotting.latent_scatter(latents, labels=classes).axes[0]
    assert [text.get_text() for text in axes.texts] == ["a", "b", "c"]
    np.testing.assert_array_equal(axes.collections[1].get_offsets(), latents[1::3])
    quantity = plotting.latent_scatter(latents, labels=latents[:, 0])
    np.testing.assert_array_equal(quantity.axes[0].collections[0].get_array(), latents[:, 0])
    assert len(quantity.axes) == 2
    assert len(plotting.latent_scatter(latents).axes[0].collections) == 1


def test_a_grid_shows_images_row_by_row_with_nothing_where_none_is_left():
    images = np.arange(5 * 4 * 3, dtype=float).reshape(5, 4, 3)
    axes = plotting.image_grid(images, columns=3).axes[0]
    mosaic = np.ma.filled(axes.images[0].get_array(), np.nan)
    assert mosaic.shape == (10, 12)
    np.testing.assert_array_equal(mosaic[5:9, 4:7], images[4])
    assert np.isnan(mosaic[5:, 8:]).all()


@pytest.mark.parametrize("num_labels", [1, 10, 40])
def test_each_category_has_its_own_colour(num_labels):
    colors = category_colors(np.arange(num_labels))
    assert len(set(colors.values())) == num_labels


def test_states_are_coloured_by_the_likeliest_and_shaded_by_their_probability():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), (TRIALS, TIME))
    data = results(num_factors=2).assign(
        states=(("trial", "time"), probabilities.argmax(-1).astype(float)),
        states_mean=(("trial", "time", "states_dim"), probabilities),
    )
    data["states"][5, 20:] = np.nan
    figure = plotting.discrete_states(data)
    assert len(figure.axes) == 3
    (mesh,) = figure.axes[0].collections
    shown = mesh.get_array().reshape(TRIALS, TIME)
    np.testing.assert_array_equal(shown.filled(np.nan), data["states"].values)
    opacity = np.stack([image.get_array()[0, :, 3] for image in figure.axes[1].images], -1)
    np.testing.assert_allclose(opacity, 0.45 * probabilities[0])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0", "1", "2"]
