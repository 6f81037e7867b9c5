"""Pictures of models of images."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from seqvae.plotting.style import NORMAL_SIZE, new_figure, tidy


def image_manifold(
    images: Float[np.ndarray, "row column height width"],
    *,
    first: Float[np.ndarray, " column"],
    second: Float[np.ndarray, " row"],
) -> Figure:
    """Decoded images over a square of a two-dimensional latent space.

    Args:
        images: ``images[i, j]`` is decoded from latent (``first[j]``, ``second[i]``).
        first: values of latent 1, rising to the right.
        second: values of latent 2, rising upwards.
    """
    mosaic = _mosaic(images[::-1])
    height, width = images.shape[2] + 1, images.shape[3] + 1
    figure = new_figure(5.0, 0.25 + 4.75 * mosaic.shape[0] / mosaic.shape[1])
    axes = figure.add_subplot()
    axes.imshow(mosaic, cmap="gray", extent=(0, mosaic.shape[1], 0, mosaic.shape[0]))
    tidy(axes, x="latent 1", y="latent 2")
    for axis, values, size in ((axes.xaxis, first, width), (axes.yaxis, second, height)):
        marked = np.linspace(0, len(values) - 1, 5)
        shown = np.interp(marked, np.arange(len(values)), values)
        axis.set_ticks((marked + 0.5) * size, [f"{value:.1f}" for value in shown])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def reconstructions(
    data: Float[np.ndarray, "image pixel"],
    mean: Float[np.ndarray, "image pixel"],
    *,
    image_shape: tuple[int, int],
    at_most: int = 12,
) -> Figure:
    """Images above the means that the model answers to them, on one grey scale.

    Args:
        data: pixels, row by row.
        mean: expected pixels.
        image_shape: height and width in pixels.
        at_most: images to show.
    """
    num_images = min(at_most, len(data))
    height, width = image_shape
    low, high = np.nanmin(data[:num_images]), np.nanmax(data[:num_images])
    figure = new_figure(0.4 + 0.55 * num_images, 0.15 + 2 * 0.55 * height / width)
    grid = figure.subplots(2, num_images, squeeze=False)
    for row, (label, pixels) in enumerate((("data", data), ("model", mean))):
        for axes, image in zip(grid[row], pixels, strict=False):
            axes.imshow(image.reshape(image_shape), cmap="gray", vmin=low, vmax=high)
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set_visible(False)
        grid[row, 0].set_ylabel(label, fontsize=NORMAL_SIZE)
    return figure


def image_grid(images: Float[np.ndarray, "image height width"], *, columns: int = 10) -> Figure:
    """Images side by side, row by row, on one grey scale."""
    num_rows = -(-len(images) // columns)
    empty = np.full((num_rows * columns - len(images), *images.shape[1:]), np.nan)
    filled = np.concatenate([images, empty]).reshape(num_rows, columns, *images.shape[1:])
    mosaic = _mosaic(filled)
    figure = new_figure(5.0, 5.0 * mosaic.shape[0] / mosaic.shape[1])
    axes = figure.add_subplot()
    axes.imshow(mosaic, cmap="gray")
    axes.set_axis_off()
    return figure


def _mosaic(
    images: Float[np.ndarray, "row column height width"],
) -> Float[np.ndarray, "mosaic_height mosaic_width"]:
    """Lay images out as one, a pixel apart."""
    gap = ((0, 0), (0, 0), (0, 1), (0, 1))
    spaced = np.pad(images, gap, constant_values=np.nan)
    num_rows, num_columns, height, width = spaced.shape
    return spaced.transpose(0, 2, 1, 3).reshape(num_rows * height, num_columns * width)
