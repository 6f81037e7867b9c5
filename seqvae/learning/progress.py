"""One progress bar for a whole training run."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from seqvae.compute.progress import bar


class Progress(ProgressBar):
    """Counts epochs, with the time left and the latest validation scores.

    Args:
        select: the validation score that picks the best weights.
        label: what is going on, in a word.
    """

    def __init__(self, select: str = "val/heldin_elbo", *, label: str = "fit") -> None:
        super().__init__()
        self.select = select
        self.label = label
        self._bar: tqdm | None = None
        self._enabled = True

    def disable(self) -> None:
        """Turn the bar off (Lightning calls this on all processes but the first)."""
        self._enabled = False

    def enable(self) -> None:
        """Turn the bar on."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar at the epoch that training starts or resumes at."""
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        self._bar = bar(
            epochs, initial=trainer.current_epoch, work=self.label, unit="epoch", show=self._enabled
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Advance by an epoch and show the latest scores."""
        if self._bar is None:
            return
        shown: dict[str, Any] = {}
        for name in dict.fromkeys((self.select, "val/co_bps", "val/bits_per_spike")):
            if name in trainer.callback_metrics:
                shown[name.removeprefix("val/")] = f"{float(trainer.callback_metrics[name]):.4g}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the bar."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
