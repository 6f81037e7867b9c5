"""How Lightning's Trainer learns a model: steps, validation, logging, clipping, schedules."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from seqvae.compute import noise
from seqvae.compute.noise import step_seed
from seqvae.compute.ranks import Share, gathered
from seqvae.data import NeuralData
from seqvae.data.batching import ShuffledBatches
from seqvae.errors import InputError
from seqvae.models.base import Model
from seqvae.models.scores import Scores
from seqvae.objectives import Objective, has_elbo, training_loss
from seqvae.types import Batch, DataSpec

OptimizerFactory = Callable[[Iterable[dict[str, Any]]], Optimizer]
ScheduleFactory = Callable[[Optimizer], LRScheduler]


class LightningModel(Model, pl.LightningModule):
    """A model with the hooks of Lightning's Trainer.

    Noise is a function of (``seed``, step) alone, so a resumed run equals an uninterrupted one.
    Validation has beta = 1, no dropout, and the same noise each time.

    Subclasses set the attributes and fill in ``parameter_groups``.

    Args:
        spec: facts of the data.

    Attributes:
        objective: weights of the bound's terms and their warm-up.
        make_optimizer: factory, parameters -> optimiser.
        make_schedule: factory, optimiser -> learning-rate schedule; None: constant learning rate.
        validation_samples: posterior samples for each trial in validation.
        gradient_norm: of the last step, before clipping.
    """

    objective: Objective
    make_optimizer: OptimizerFactory
    make_schedule: ScheduleFactory | None
    validation_samples: int

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.gradient_norm: Tensor | None = None
        self._noise_seed: int | None = None
        self._scores: list[dict[tuple[int, ...] | None, Scores]] = []  # of the neurons of a batch
        self._term_sums: dict[str, tuple[Tensor, int]] = {}

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return what the optimiser is made for, in groups with settings of their own."""

    @property
    def recurrent_kernels(self) -> list[Tensor]:
        """State-to-state weights, for the optional L2 term."""
        return []

    def setup(self, stage: str) -> None:
        """Start at the data, once."""
        data = getattr(self.trainer, "datamodule", None)
        if not self.initialized and isinstance(data, NeuralData):
            self.initialize(data)
        for parameter in self.parameters():  # no gradient comes for one without entries
            if not parameter.numel():
                parameter.requires_grad_(False)

    def configure_optimizers(self) -> Any:
        """Make the optimiser and its schedule."""
        optimizer = self.make_optimizer(self.parameter_groups())
        if self.make_schedule is None:
            return optimizer
        schedule = self.make_schedule(optimizer)
        # A plateau schedule is stepped in on_validation_epoch_end, before checkpoints are written.
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "reduce_on_plateau": False},
        }

    def lr_scheduler_step(self, scheduler: LRScheduler, metric: object) -> None:
        """Step a schedule that counts epochs."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()

    def on_train_epoch_start(self) -> None:
        """Shuffle by the epochs that are done; resumed by steps, Lightning counts one too many."""
        sampler = getattr(self.trainer.train_dataloader, "sampler", None)
        if isinstance(sampler, ShuffledBatches):
            sampler.set_epoch(self.current_epoch)
        self._term_sums = {}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Make the noise of this step a function of seed, step and trial.

        Torch's generator is seeded, too, for parts of other packages that draw by it.
        """
        seed = self._noise_seed = step_seed(self.seed, self.trainer.fit_loop.total_batch_idx)
        if self.device.type == "cpu":
            torch.default_generator.manual_seed(seed)  # of all devices would take 0.5 ms
        else:
            torch.manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the loss and its terms by name, in nats per trial."""
        recurrent_l2 = self.objective.recurrent_l2_at(self.global_step)
        model, batch = self.narrowed(self.scored(batch))
        with noise.keyed(self._noise_seed):
            output = model(batch, self.objective.num_samples)
        share, step = self._share(batch, batch_idx), self.global_step
        loss, terms = training_loss(self.objective, output, batch, step=step, share=share)
        parts = {"log_likelihood": terms.log_likelihood.mean()}
        parts |= {f"kl/{name}": value.mean() for name, value in terms.kl.items()}
        if recurrent_l2 > 0 and self.recurrent_kernels:
            kernels = torch.cat([kernel.flatten() for kernel in self.recurrent_kernels])
            parts["recurrent_l2"] = recurrent_l2 * kernels.square().mean()
            loss = loss + parts["recurrent_l2"]
        parts = {name: value.detach() for name, value in parts.items()}
        elbo = {"elbo": terms.elbo().mean().detach()} if has_elbo(output) else {}
        for name, value in (parts | elbo).items():
            total, num_trials = self._term_sums.get(name, (0.0, 0))
            self._term_sums[name] = (total + share.own * value.double(), num_trials + share.own)
        return {"loss": loss, **parts}

    def _share(self, batch: Batch, batch_idx: int) -> Share:
        """Return what this process has of a step's trials."""
        count = self._num_processes
        sampler = getattr(self.trainer.train_dataloader, "sampler", None) if count > 1 else None
        if not isinstance(sampler, ShuffledBatches):  # several take other data: all count alike
            return Share(len(batch), len(batch) * count, count)
        share = sampler.share(batch_idx)
        if len(batch) != max(share.own, 1):
            raise InputError(
                "a checkpoint from within an epoch cannot be resumed on several devices; resume "
                "from one that was saved at the end of an epoch, such as last.ckpt"
            )
        return share

    @property
    def _num_processes(self) -> int:
        """How many processes train, or score, together."""
        return 1 if self._trainer is None else self._trainer.world_size

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the Trainer says, and keep the norm before, which clipping by norm takes anyway.

        It stays on the device as ``gradient_norm``.
        """
        main = self.trainer.precision_plugin.main_params(optimizer)
        parameters = [parameter for parameter in main if parameter.grad is not None]
        by_norm = gradient_clip_algorithm in (None, "norm")
        unscales = getattr(optimizer, "_step_supports_amp_scaling", False)  # Lightning checks those
        if gradient_clip_val and by_norm and not unscales:
            self.gradient_norm = clip_grad_norm_(parameters, gradient_clip_val)
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        self.gradient_norm = get_total_norm(gradients)
        super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log where an epoch ends: callbacks' own hooks at its end run before the model's."""
        trainer = self.trainer
        stops = trainer.should_stop or trainer.global_step == trainer.max_steps
        if trainer.is_last_batch or stops:
            self._log_terms()

    def on_train_epoch_end(self) -> None:
        """Log what a validation within the epoch has cut off."""
        self._log_terms()

    def _log_terms(self) -> None:
        """Log the mean of each term over the trials since the last time, those of all processes."""
        sums, self._term_sums = self._term_sums, {}
        if sums and self._num_processes > 1:
            local = {name: (float(total), count) for name, (total, count) in sums.items()}
            of_all = gathered(local, self._num_processes)
            for name, (total, _) in sums.items():
                totals, counts = zip(*(terms[name] for terms in of_all), strict=True)
                sums[name] = (torch.full_like(total, math.fsum(totals)), sum(counts))
        for name, (total, num_trials) in sums.items():
            self.log(
                f"train/{name}",
                total / num_trials,
                on_step=False,
                on_epoch=True,
                batch_size=num_trials,
                sync_dist=True,  # the same everywhere: to be spared Lightning's advice
            )

    def on_validation_epoch_start(self) -> None:
        """Draw the same noise in every validation, and forget the last one's sums."""
        self._noise_seed = step_seed(self.seed, -1)
        torch.manual_seed(self._noise_seed)
        self._scores = []

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score a batch at beta = 1; set 1, if there, scores speckled entries only."""
        while len(self._scores) <= dataloader_idx:
            self._scores.append({})
        if not len(batch):  # the other processes have its trials
            return
        neurons, (model, batch) = batch.neurons, self.narrowed(self.scored(batch))
        with noise.keyed(self._noise_seed):
            output = model(batch, self.validation_samples)
        scores = self._scores[dataloader_idx]
        if neurons not in scores:
            counts = self.observation.kind.counts_events
            scores[neurons] = Scores(model.spec, model.null_counts, counts=counts)
        scores[neurons].update(output, batch)

    def on_test_epoch_start(self) -> None:
        """Start as a validation does."""
        self.on_validation_epoch_start()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch of test trials."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the scores of the test trials."""
        (scores,) = self._scores
        self._log_all({f"test/{name}": value for name, value in self._computed(scores).items()})

    def on_predict_epoch_start(self) -> None:
        """Draw the noise of a validation."""
        self._noise_seed = step_seed(self.seed, -1)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the posterior means of ``factors`` and of the data (``mean``, data units)."""
        with noise.keyed(self._noise_seed):
            output = self(batch, self.validation_samples)
        return {"mean": output.emission.mean.mean(dim=0), "factors": output.factors.mean(dim=0)}

    def on_validation_epoch_end(self) -> None:
        """Log the scores and step a plateau schedule."""
        plain, *speckled = (self._computed(scores) for scores in self._scores)
        logged = {f"val/{name}": value for name, value in plain.items()}
        for scores in speckled:
            for name, source in (("bps", "bits_per_spike"), ("log_likelihood", "log_likelihood")):
                if source in scores:
                    logged[f"val/speckled_{name}"] = scores[source]
        self._log_all(logged)
        if self.trainer.sanity_checking or self.trainer.state.fn != "fit":
            return
        step = self.global_step
        schedule = self.lr_schedulers()
        if isinstance(schedule, ReduceLROnPlateau) and step >= self.objective.ramp_end:
            schedule.step(-plain.get("heldin_elbo", plain["log_likelihood"]))
        self._log_all(
            {
                "train/beta": self.objective.beta_at(step),
                "train/learning_rate": self.optimizers().param_groups[0]["lr"],  # type: ignore[union-attr]
            }
        )

    def _computed(self, scores: Mapping[tuple[int, ...] | None, Scores]) -> dict[str, float]:
        """Return the scores of all neurons and the trials of all processes."""
        counts = self.observation.kind.counts_events
        own = Scores(self.spec, self.null_counts, counts=counts)
        total = Scores(self.spec, self.null_counts, counts=counts)
        for part in scores.values():
            own.add_sums(part.sums())
        for sums in gathered(own.sums(), self._num_processes):
            total.add_sums(sums)
        return total.compute()

    def _log_all(self, values: Mapping[str, float]) -> None:
        tensors = {
            name: torch.tensor(value, dtype=torch.float64, device=self.device)
            for name, value in values.items()
        }
        self.log_dict(tensors, sync_dist=True)  # as in ``_log_terms``
