"""The figures of a run, drawn when they are asked for: ``run.plot.psth()``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

from seqvae.analysis.shown import drawable, shown_posterior
from seqvae.data import NeuralData
from seqvae.errors import InputError, nearest
from seqvae.models import Model

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

FigureName = Literal[
    "rasters_and_rates",
    "rate_traces",
    "latents",
    "psth",
    "inferred_inputs",
    "states",
    "learning_curves",
]
NAMES: tuple[str, ...] = get_args(FigureName)
NUM_SAMPLES = 20


class Figures:
    """Draws what a fitted model makes of some trials; inference is done once for each split.

    Args:
        model: the model.
        data: its data.
        history: the rows of its learning.
        split: the trials; None: validation trials, or training trials if there are none.
        seed: of the posterior samples.
    """

    def __init__(
        self,
        model: Model,
        data: NeuralData,
        *,
        history: Sequence[dict[str, float | int]],
        split: str | None = None,
        seed: int = 0,
    ) -> None:
        self._model, self._data, self._history, self._seed = model, data, history, seed
        self._split = split or ("val" if "val" in data.split else "train")
        self._posterior: xr.Dataset | None = None

    @property
    def posterior(self) -> xr.Dataset:
        """What the figures are drawn from: the posterior, activity, behaviour, and the score."""
        if self._posterior is None:
            trials = self._data.trials(self._split)
            self._posterior = shown_posterior(
                self._model, self._data, trials, num_samples=NUM_SAMPLES, seed=self._seed
            )
        return self._posterior

    def of(self, split: str) -> Figures:
        """Return the figures of other trials.

        Args:
            split: "train", "val", "test" or "all".
        """
        return Figures(self._model, self._data, history=self._history, split=split, seed=self._seed)

    def draw(self, figure: str) -> Figure:
        """Draw the figure of a name.

        Raises:
            InputError: for an unknown name, or one that this run has nothing for.
        """
        if figure not in NAMES:
            raise InputError(f"figure {figure!r} is unknown{nearest(figure, NAMES)}")
        if figure == "learning_curves":
            return self.learning_curves()
        drawn = drawable(self.posterior)
        if figure not in drawn:
            raise InputError(
                f"figure: {type(self._model).__name__} has no {figure.replace('_', ' ')}; "
                f"it has {', '.join([*drawn, 'learning_curves'])}"
            )
        return drawn[figure](self.posterior)

    def learning_curves(self) -> Figure:
        """Draw bound, divergences, scores and learning rate.

        Raises:
            InputError: for a run without a history.
        """
        from seqvae import plotting

        if not self._history:
            raise InputError("figure: the run has no history, so there are no learning curves")
        return plotting.learning_curves(self._history, title=type(self._model).__name__)

    def rasters_and_rates(self, *, trials: Sequence[int] | None = None) -> Figure:
        """Draw counts above inferred rates; see ``seqvae.plotting.rasters_and_rates``."""
        from seqvae import plotting

        return plotting.rasters_and_rates(self.posterior, trials=trials)

    def rate_traces(
        self, *, trials: Sequence[int] | None = None, neurons: Sequence[int] | None = None
    ) -> Figure:
        """Draw single-trial rates; see ``seqvae.plotting.rate_traces``."""
        from seqvae import plotting

        return plotting.rate_traces(self.posterior, trials=trials, neurons=neurons)

    def latents(self) -> Figure:
        """Draw latent trajectories; see ``seqvae.plotting.latents``."""
        return self.draw("latents")

    def psth(self, *, neurons: Sequence[int] | None = None) -> Figure:
        """Draw means by condition; see ``seqvae.plotting.psth``."""
        from seqvae import plotting

        return plotting.psth(self.posterior, neurons=neurons)

    def inferred_inputs(self) -> Figure:
        """Draw inferred inputs; see ``seqvae.plotting.inferred_inputs``."""
        return self.draw("inferred_inputs")

    def states(self) -> Figure:
        """Draw discrete states; see ``seqvae.plotting.discrete_states``."""
        return self.draw("states")
