"""The posterior averaged over the data, beside the prior it should be."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from scipy.ndimage import gaussian_filter

from seqvae.plotting.style import BLACK, BLUE, SKY, SMALL_SIZE, new_figure, tidy

MASSES = (0.5, 0.9, 0.99)
EXTENT = 4.0  # prior standard deviations to each side
CELLS = 200
MAX_MARGINALS = 12
SMOOTHING_SD = 0.15  # prior standard deviations


def aggregate_posterior(
    samples: Float[np.ndarray, "sample item latent"],
    *,
    prior_mean: Float[np.ndarray, " latent"],
    prior_sd: Float[np.ndarray, " latent"],
) -> Figure:
    """The aggregate posterior q(z) = mean over items of q(z | x), against a Gaussian prior.

    Two latents: density of q(z) and the regions of highest density that hold 50, 90 and 99 % of it,
    with those of the prior. Otherwise: marginals of the most active latents, whose posterior means
    vary most between the items, in units of the prior's standard deviation.

    Args:
        samples: draws from the posterior of each item.
        prior_mean: mean of the prior.
        prior_sd: standard deviation of the prior.
    """
    if samples.shape[-1] == 2:
        return _plane(samples.reshape(-1, 2), prior_mean, prior_sd)
    return _marginals((samples - prior_mean) / prior_sd)


def _plane(
    points: Float[np.ndarray, "point 2"],
    prior_mean: Float[np.ndarray, " 2"],
    prior_sd: Float[np.ndarray, " 2"],
) -> Figure:
    reach = np.maximum(EXTENT * prior_sd, 1.1 * np.quantile(np.abs(points - prior_mean), 0.999, 0))
    edges = [np.linspace(m - r, m + r, CELLS + 1) for m, r in zip(prior_mean, reach, strict=True)]
    counts = np.histogram2d(points[:, 0], points[:, 1], bins=edges)[0].T
    width = SMOOTHING_SD * prior_sd / (2 * reach / CELLS)
    density = gaussian_filter(counts, width[::-1], mode="constant")
    density /= density.sum()

    figure = new_figure(3.9, 3.6)
    axes = figure.add_subplot()
    middles = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
    axes.pcolormesh(*middles, density, cmap="Blues", shading="nearest", rasterized=True)
    falling = np.sort(density, axis=None)[::-1]
    held = np.cumsum(falling)
    levels = np.unique([falling[np.searchsorted(held, mass)] for mass in MASSES])
    axes.contour(*middles, density, levels=levels, colors=[BLUE], linewidths=0.8)
    for mass in MASSES:
        width_, height = 2 * prior_sd * np.sqrt(-2 * np.log1p(-mass))
        ring = Ellipse(
            (float(prior_mean[0]), float(prior_mean[1])),
            width_,
            height,
            fill=False,
            edgecolor=BLACK,
            linestyle="--",
            linewidth=0.8,
        )
        axes.add_patch(ring)
    tidy(axes, x="latent 1", y="latent 2", title="regions that hold 50, 90 and 99 %")
    axes.set_aspect("equal")
    figure.legend(
        handles=[
            Line2D([], [], color=BLUE, linewidth=0.8, label="aggregate posterior"),
            Line2D([], [], color=BLACK, linewidth=0.8, linestyle="--", label="prior"),
        ],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=SMALL_SIZE,
    )
    return figure


def _marginals(samples: Float[np.ndarray, "sample item latent"]) -> Figure:
    activity = samples.mean(0).var(0)
    order = np.argsort(-activity)[:MAX_MARGINALS]
    columns = min(4, len(order))
    num_rows = -(-len(order) // columns)
    figure = new_figure(1.7 * columns + 0.3, 1.35 * num_rows + 0.5)
    grid = np.ravel(figure.subplots(num_rows, columns, squeeze=False, sharex=True, sharey=True))
    for place, axes in enumerate(grid):
        if place >= len(order):
            axes.set_axis_off()
            continue
        latent = int(order[place])
        _marginal(axes, samples[..., latent].ravel())
        tidy(
            axes,
            x="prior sd" if place + columns >= len(order) else "",
            title=f"latent {latent + 1} (variance of means {activity[latent]:.2f})",
        )
        axes.title.set_fontsize(SMALL_SIZE - 1)
        axes.xaxis.set_tick_params(labelbottom=place + columns >= len(order))
        axes.set_yticks([])
    handles = grid[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False, fontsize=SMALL_SIZE)
    return figure


def _marginal(axes: Axes, values: Float[np.ndarray, " point"]) -> None:
    edges = np.linspace(-EXTENT, EXTENT, 81)
    density = np.histogram(values, bins=edges)[0] / (len(values) * (edges[1] - edges[0]))
    axes.stairs(density, edges, fill=True, color=SKY, alpha=0.6, label="aggregate posterior")
    curve = np.exp(-0.5 * edges**2) / np.sqrt(2 * np.pi)
    axes.plot(edges, curve, "--", color=BLACK, linewidth=0.9, label="prior")
