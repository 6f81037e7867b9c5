"""The family of sources: where a recording comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod

from seqvae.data.recording import Recording


class RecordingSource(ABC):
    """A place recordings come from. Members are frozen dataclasses with one verb."""

    @property
    def in_memory(self) -> bool:
        """Whether the data are in memory only, so that no config can tell of them."""
        return False

    @abstractmethod
    def load(self) -> Recording:
        """Read or simulate the recording, validated.

        Raises:
            InputError: in one sentence with field, first offending index or key, and cure.
        """
