"""What every gradient-trained model shares: the training step, validation, optimiser, scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from seqvae.compute import noise
from seqvae.compute.noise import step_seed
from seqvae.compute.ranks import Share, gathered
from seqvae.data import NeuralData
from seqvae.data.loading import ShuffledBatches
from seqvae.distributions import Delta, draw
from seqvae.errors import InputError
from seqvae.models.base import Model
from seqvae.models.scores import Scores
from seqvae.objectives import Objective, has_elbo, training_loss
from seqvae.types import Batch, DataSpec

OptimizerFactory = Callable[[Iterable[dict[str, Any]]], Optimizer]
ScheduleFactory = Callable[[Optimizer], LRScheduler]

# Any improvement counts. Torch's default threshold is relative to the best score, and where that is
# negative, as the -ELBO of real-valued data may be, takes anything near it for an improvement.
DEFAULT_SCHEDULE = partial(ReduceLROnPlateau, factor=0.5, patience=12, min_lr=1e-4, threshold=0.0)


class LatentVariableModel(Model, pl.LightningModule):
    """A model trained on the evidence lower bound by gradients.

    Subclasses set ``observation`` and fill in ``forward``, ``sample`` and, where they have some,
    ``recurrent_kernels``.
    Given a ``NeuralData``, the readout starts at the training mean of each neuron.

    Noise is a function of (``seed``, step) alone, so a resumed run equals an uninterrupted one.
    Validation has beta = 1, no dropout, and the same noise each time.

    Args:
        spec: facts of the data.
        objective: weights of the bound's terms and their warm-up.
        optimizer: factory, parameters -> optimiser.
        schedule: factory, optimiser -> learning-rate schedule, stepped once an epoch; a
            ``ReduceLROnPlateau`` is stepped once a validation on the held-in -ELBO (without one: on
            -log-likelihood), after the warm-ups. None: constant learning rate.
        validation_samples: posterior samples for each trial in validation.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        objective: Objective = Objective(),  # noqa: B008 (frozen)
        optimizer: OptimizerFactory = partial(AdamW, lr=4e-3, weight_decay=0.1),
        schedule: ScheduleFactory | None = DEFAULT_SCHEDULE,
        validation_samples: int = 4,
    ) -> None:
        super().__init__(spec)
        self.objective = objective
        self.make_optimizer = optimizer
        self.make_schedule = schedule
        self.validation_samples = validation_samples
        self.observed_mean: Tensor
        self.observed_scale: Tensor
        self.register_buffer("observed_mean", torch.zeros(spec.num_heldin))
        self.register_buffer("observed_scale", torch.ones(()))
        self._noise_seed: int | None = None
        self.gradient_norm: Tensor | None = None
        self._scores: list[Scores] = []
        self._term_sums: dict[str, tuple[Tensor, int]] = {}

    @property
    def recurrent_kernels(self) -> list[Tensor]:
        """State-to-state weights, for the optional L2 term."""
        return []

    def standardized(self, batch: Batch) -> Float[Tensor, "batch encoded_time heldin"]:
        """Return what inference sees, centred at the training means, in units of typical deviation.

        An entry that is missing or hidden counts as the mean.
        """
        centred = batch.observed - self.observed_mean
        return centred.div_(self.observed_scale).mul_(batch.observed_mask)

    def draw(
        self, posterior: Distribution, num_samples: int
    ) -> Float[Tensor, "sample batch *event"]:
        """Draw posterior samples as the objective's gradient needs them.

        Raises:
            InputError: if the posterior does not allow that gradient.
        """
        gradient = self.objective.gradient
        if self.objective.uses_score:
            if isinstance(posterior, Delta):
                raise InputError(
                    f"gradient {gradient!r} needs a posterior with a density, which a point has not"
                )
            with torch.no_grad():
                return draw(posterior, num_samples)
        if not posterior.has_rsample:
            name = type(posterior).__name__
            raise InputError(
                f"gradient {gradient!r} cannot pass through samples of a posterior of type {name}; "
                "use gradient 'score_function'"
            )
        return draw(posterior, num_samples)

    def initialize(self, data: NeuralData) -> None:
        """Take the training means: null rates of the scores, start of the readout, input scale."""
        super().initialize(data)
        heldin = list(self.spec.heldin)
        std = data.train_std.to(self.null_counts)
        self.observed_mean.copy_(self.null_counts[heldin])
        self.observed_scale.copy_(std[heldin].square().mean().sqrt().clamp_min(1e-6))

    # Lightning hooks

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

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return matrices, which weight decay may shrink, and all the rest, which it must not.

        A bias holds a neuron's mean rate, a vector of a prior its scale; decay would bend the model
        rather than simplify it.
        """
        matrices = [parameter for parameter in self.parameters() if parameter.ndim > 1]
        rest = [parameter for parameter in self.parameters() if parameter.ndim <= 1]
        return [{"params": matrices}, {"params": rest, "weight_decay": 0.0}]

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
        with noise.keyed(self._noise_seed):
            output = self(batch, self.objective.num_samples)
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
            told = {name: (float(total), count) for name, (total, count) in sums.items()}
            of_all = gathered(told, self._num_processes)
            for name, (total, _) in sums.items():
                totals, counts = zip(*(told[name] for told in of_all), strict=True)
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
        counts = self.observation.kind.counts_events
        while len(self._scores) <= dataloader_idx:
            self._scores.append(Scores(self.spec, self.null_counts, counts=counts))
        if not len(batch):  # the other processes have its trials
            return
        with noise.keyed(self._noise_seed):
            output = self(batch, self.validation_samples)
        self._scores[dataloader_idx].update(output, batch)

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

    def _computed(self, scores: Scores) -> dict[str, float]:
        """Return the scores of the trials of all processes."""
        if self._num_processes == 1:
            return scores.compute()
        total = Scores(self.spec, self.null_counts, counts=bool(scores.bits))
        for sums in gathered(scores.sums(), self._num_processes):
            total.add_sums(sums)
        return total.compute()

    def _log_all(self, values: Mapping[str, float]) -> None:
        tensors = {
            name: torch.tensor(value, dtype=torch.float64, device=self.device)
            for name, value in values.items()
        }
        self.log_dict(tensors, sync_dist=True)  # as in ``_log_terms``
