"""The decoder's recursion, fast: the bins under the controller, then those driven by the prior."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.nn.controlled_path import ControlledBuffers, ControlledWeights, controlled_path
from seqvae.nn.decoder_path import Conditional, DecoderDraws, DecoderPath
from seqvae.nn.fused_gru import fused_gru
from seqvae.nn.gru_path import GRUPath
from seqvae.nn.gru_products import CellWeights
from seqvae.nn.workspace import Workspace


class FusedDecoder:
    """Gives what the loop of ``ControlledDecoder`` gives, values and gradients, faster.

    It holds the buffers that are kept from one step of training to the next.

    Args:
        min_std: floor of the standard deviation of an inferred input.
    """

    def __init__(self, min_std: float) -> None:
        self._min_std = min_std
        self._controlled: Workspace[ControlledBuffers] = Workspace()
        self._autonomous: Workspace[GRUPath] = Workspace()

    def __call__(
        self,
        initial_state: Float[Tensor, "sample batch state"],
        encoding: Float[Tensor, "batch encoded_time encoding"],
        external: Float[Tensor, "batch time input"],
        *,
        draws: DecoderDraws,
        prior_step: Conditional | None,
        generator: CellWeights,
        factors: Float[Tensor, "factor state"],
        controlled: ControlledWeights | None,
    ) -> DecoderPath:
        """Run the recursion; see ``ControlledDecoder.forward``.

        Args:
            initial_state: as there.
            encoding: as there.
            external: as there.
            draws: as there.
            prior_step: as there.
            generator: the generator's cell.
            factors: readout of the factors.
            controlled: all that the controlled bins need; None if there is no controller.
        """
        num_encoded, num_bins = encoding.shape[1], external.shape[1]
        state = initial_state.flatten(0, 1).t()
        noise, state_mask = draws.noise.flatten(2), draws.state_mask
        state_mask = None if state_mask is None else state_mask.flatten(2)
        parts: list[tuple[Tensor, ...]] = []
        if num_encoded:
            assert controlled is not None
            path = controlled_path(
                encoding.permute(1, 2, 0).contiguous(),
                external[:, :num_encoded].permute(1, 2, 0),
                noise[:num_encoded],
                initial_state=state,
                weights=controlled,
                min_std=self._min_std,
                encoding_mask=draws.encoding_mask,
                factor_mask=None if draws.factor_mask is None else draws.factor_mask.flatten(2),
                state_mask=None if state_mask is None else state_mask[:num_encoded],
                workspace=self._controlled,
            )
            state = path.final
            parts.append(path[:4])
        if num_bins > num_encoded:
            last = parts[0][1][-1] if parts else None
            drawn, mean, std = _prior_path(noise[num_encoded:], prior_step, num_encoded, last=last)
            drive = _drive(drawn, external[:, num_encoded:].permute(1, 2, 0))
            states = fused_gru(drive, state[None], [generator], workspace=self._autonomous).states
            assert states is not None
            seen = states if state_mask is None else states * state_mask[num_encoded:]
            parts.append((factors @ seen, drawn, mean, std))
        whole = [torch.cat(part) if len(part) > 1 else part[0] for part in zip(*parts, strict=True)]
        sampled = initial_state.shape[:2]
        return DecoderPath(*(part.unflatten(2, sampled).permute(2, 3, 0, 1) for part in whole))


def _prior_path(
    noise: Float[Tensor, "time inferred columns"],
    prior_step: Conditional | None,
    first: int,
    *,
    last: Float[Tensor, "inferred columns"] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw u from its prior: the path, and the means and deviations it was drawn with.

    Args:
        noise: standard normal draws; of size 0 if there is no u.
        prior_step: the prior's conditionals; None if there is no u.
        first: the bin of the first draw.
        last: the draw before; None if there is none.
    """
    if prior_step is None:
        return noise, noise, noise
    drawn = None if last is None else last.t()
    path: list[tuple[Tensor, ...]] = []
    for t, standard in enumerate(noise.transpose(1, 2), start=first):
        mean, std = (part.expand_as(standard) for part in prior_step(t, drawn))
        drawn = mean + std * standard
        path.append((drawn, mean, std))
    drawn, mean, std = (torch.stack(part).transpose(1, 2) for part in zip(*path, strict=True))
    return drawn, mean, std


def _drive(
    drawn: Float[Tensor, "time inferred columns"], external: Float[Tensor, "time input trial"]
) -> Float[Tensor, "time drive columns"]:
    """Join u_t with v_t, which is the same for all samples of a trial."""
    if external.shape[1] == 0:
        return drawn
    num_samples = drawn.shape[2] // external.shape[2]
    return torch.cat([drawn, external.repeat(1, 1, num_samples)], dim=1)
