"""The words by which labs call what they record, and what a name says of its entry."""

from __future__ import annotations

import re
from itertools import pairwise

WORDS = {
    "activity": "spike spikes spk spikecounts spikescounts count counts activity neural raster "
    "firing dff fluorescence calcium lfp ecog traces spikeraster spiketrain spiketrains fr",
    "activity perhaps": "data x y f response responses area binned units m1 pmd v1 v2 ca1",
    "times": "spike spikes spk time times spiketime spiketimes t timestamp timestamps st",
    "neurons": "unit units neuron neurons cluster clusters cell cells channel channels electrode "
    "electrodes roi unitids neuronids",
    "trials": "trial trials trialid trialids trialnum epoch epochs",
    "behavior": "behavior behaviour vel velocity pos position speed hand cursor kin kinematics "
    "kinematic eye gaze wheel lick force emg joint joints running pupil acc xy angular progress "
    "behav handvel vraw",
    "inputs": "input inputs extinput stimulation",
    "split": "split splits fold partition subset",
    "heldout": "heldout held withheld hidden",
    "heldin": "heldin",
    "lengths": "length lengths duration durations nbins numbins len triallength",
    "condition": "condition conditions cond conds angle angles angs target targets stim stimulus "
    "stimuli direction directions type label labels class choice targ context",
    "neuron_ids": "unit units neuron neurons cell cells channel channels electrode id ids name",
    "trial_ids": "trial trials id ids index inds number",
    "bin_width": "dt bin binwidth binsize bins width step timestep",
    "rate": "fs hz rate samplerate samplingrate framerate fps sampling freq frequency",
}  # fmt: skip
_SETS = {part: frozenset(words.split()) for part, words in WORDS.items()}


def tokens(name: str) -> set[str]:
    """Return the words of the last part of a name, joined and apart, in small letters."""
    last = re.split(r"[./]", name)[-1]
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", last)
    parts = [part for part in re.split(r"[^A-Za-z0-9]+", spaced.lower()) if part]
    return {
        *parts,
        "".join(parts),
        *("".join(pair) for pair in pairwise(parts)),
    }


def says(name: str, part: str) -> int:
    """Return how many words of a name are words of a part."""
    return len(tokens(name) & _SETS[part])
