"""Figures of a model in training: to the run folder and to every logger that takes pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from seqvae.analysis.posterior import deterministic, posterior_dataset
from seqvae.analysis.shown import drawable, shown_posterior
from seqvae.data import NeuralData
from seqvae.learning.observers.base import Observer, Stage
from seqvae.models import VAE, Model
from seqvae.storage.files import RunFiles, atomic_path
from seqvae.types import Batch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_TRIALS = 60
FIGURE_SAMPLES = 20
SIDE = 15  # images along each side of the latent square
NUM_PRIOR_IMAGES = 60


class Figures(Observer):
    """Draws the figures at the end of learning, with the best weights, and now and then before.

    Args:
        run: the run folder; figures go to its ``figures`` folder as PNG.
        every: epochs between drawings; 0 draws at the end only.
    """

    def __init__(self, run: RunFiles, *, every: int = 0) -> None:
        self.run = run
        self.every = every

    def progress(self, stage: Stage) -> None:
        """Draw if it is time."""
        if self.every and stage.number % self.every == 0:
            self._draw(stage)

    def end(self, stage: Stage) -> None:
        """Draw what learning has come to."""
        self._draw(stage)

    def _draw(self, stage: Stage) -> None:
        for name, figure in draw_figures(stage.model, stage.data, list(stage.rows)).items():
            with atomic_path(self.run.figures / f"{name}.png") as temporary:
                figure.savefig(temporary, format="png")
            for logger in stage.loggers:
                log_figure(logger, name, figure, step=stage.step)
            figure.clear()


def draw_figures(
    model: Model, data: NeuralData, history: list[dict[str, float | int]]
) -> dict[str, Figure]:
    """Draw what the data allow, for validation trials (training trials if there are none).

    Args:
        model: a model.
        data: its data.
        history: rows of metrics.

    Returns:
        Figures by name.
    """
    from seqvae import plotting

    title = type(model).__name__
    figures = {"learning_curves": plotting.learning_curves(history, title=title)} if history else {}
    trials = data.trials("val" if "val" in data.split else "train")
    recording, spec = data.recording, data.spec
    if recording.image_shape is not None:
        return figures | _draw_images(model, data, trials, recording.image_shape)
    if spec.num_time_bins == 1:
        return figures
    posterior = shown_posterior(model, data, trials[:FIGURE_TRIALS], num_samples=FIGURE_SAMPLES)
    draws = drawable(posterior)
    if "condition" not in posterior.coords:  # one mean of all trials says little
        del draws["psth"]
    return figures | {name: draw(posterior) for name, draw in draws.items()}


def _draw_images(
    model: Model, data: NeuralData, trials: np.ndarray, shape: tuple[int, int]
) -> dict[str, Figure]:
    """Draw reconstructions, images from the prior, what q(z) is, and the plane of images."""
    from seqvae import plotting

    results = posterior_dataset(model, data, trials, num_samples=FIGURE_SAMPLES)
    mean = results["mean"].values[:, 0]
    pixels = data.recording.read(trials)[:, 0]
    figures = {"reconstructions": plotting.reconstructions(pixels, mean, image_shape=shape)}
    with deterministic(model, seed=0):
        fresh = model.sample(NUM_PRIOR_IMAGES).emission.mean[0, :, 0].cpu().numpy()
        figures["prior_samples"] = plotting.image_grid(fresh.reshape(-1, *shape))
        if not isinstance(model, VAE):
            return figures
        drawn = [
            model(batch, FIGURE_SAMPLES).latents["latent"]
            for batch in _on_device(model, data, trials)
        ]
    prior = drawn[0].prior
    figures["aggregate_posterior"] = plotting.aggregate_posterior(
        torch.cat([latent.sample[:, :, 0] for latent in drawn], dim=1).cpu().numpy(),
        prior_mean=prior.mean[0].detach().cpu().numpy(),
        prior_sd=prior.stddev[0].detach().cpu().numpy(),
    )
    if model.latent_dim != 2:
        return figures
    latents = results["latent_mean"].values[:, 0]
    labels = None if data.recording.condition is None else data.recording.condition[trials]
    figures["latents"] = plotting.latent_scatter(latents, labels=labels)
    side = torch.special.ndtri(torch.linspace(0.02, 0.98, SIDE))  # equal masses of N(0, 1)
    second, first = torch.meshgrid(side, side, indexing="ij")
    square = torch.stack([first, second], dim=-1).to(model.null_counts)
    with deterministic(model, seed=0):
        images = model.decode(square).mean.cpu().numpy().reshape(SIDE, SIDE, *shape)
    figures["manifold"] = plotting.image_manifold(images, first=side.numpy(), second=side.numpy())
    return figures


def _on_device(model: Model, data: NeuralData, trials: np.ndarray) -> Iterator[Batch]:
    return (batch.to(model.null_counts.device) for batch in data.batches(trials))


def log_figure(logger: object, name: str, figure: Figure, *, step: int) -> None:
    """Hand a figure to a logger that takes pictures (W&B, TensorBoard); others are left alone."""
    from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

    if isinstance(logger, WandbLogger):
        import wandb

        logger.experiment.log({f"figures/{name}": wandb.Image(figure), "trainer/global_step": step})
    elif isinstance(logger, TensorBoardLogger):
        logger.experiment.add_figure(f"figures/{name}", figure, global_step=step, close=False)
