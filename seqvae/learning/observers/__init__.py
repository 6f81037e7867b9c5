"""Observers of a learner: what hears of a fit while it is learned, and leaves it as it is."""

from __future__ import annotations

from seqvae.learning.observers.alarms import Alarms as Alarms
from seqvae.learning.observers.alarms import tell as tell
from seqvae.learning.observers.base import HistoryRows as HistoryRows
from seqvae.learning.observers.base import MetricsRow as MetricsRow
from seqvae.learning.observers.base import Observer as Observer
from seqvae.learning.observers.base import Observers as Observers
from seqvae.learning.observers.base import Stage as Stage
from seqvae.learning.observers.figures import Figures as Figures
from seqvae.learning.observers.run_folder import RunFolder as RunFolder
from seqvae.storage.files import RunFiles


def run_observers(
    files: RunFiles, *, begins_anew: bool = False, figures_every: int = 0
) -> tuple[Observer, ...]:
    """Return those who make a run folder of a fit: files, alarms and figures.

    Args:
        files: the run folder.
        begins_anew: whether the learner begins anew when a run is resumed.
        figures_every: epochs between drawings; 0 draws at the end only.
    """
    return (
        RunFolder(files, begins_anew=begins_anew),
        Alarms(),
        Figures(files, every=figures_every),
    )
