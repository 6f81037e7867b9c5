"""Handwritten digits, the small picture set that comes with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

from seqvae.data.recording import Recording
from seqvae.data.sources.base import RecordingSource


@dataclass(frozen=True)
class Digits(RecordingSource):
    """1797 pictures of 8 x 8 pixels as one-bin trials of 64 channels, grey levels in [0, 1].

    ``condition`` is the digit. [Alpaydin & Kaynak 1998, UCI repository; scikit-learn's load_digits]
    """

    def load(self) -> Recording:
        """Read the pictures that scikit-learn ships."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        return Recording(digits.data[:, None, :] / 16, condition=digits.target)
