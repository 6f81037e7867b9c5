"""Preprocessing: small functions from recordings to recordings, and their settings for a config."""

from seqvae.data.transforms.alignment import Align as Align
from seqvae.data.transforms.alignment import align as align
from seqvae.data.transforms.base import Transform as Transform
from seqvae.data.transforms.base import check_transforms as check_transforms
from seqvae.data.transforms.base import learners as learners
from seqvae.data.transforms.base import transformed as transformed
from seqvae.data.transforms.behavior import ResampleBehavior as ResampleBehavior
from seqvae.data.transforms.behavior import resample_behavior as resample_behavior
from seqvae.data.transforms.fluorescence import DFF as DFF
from seqvae.data.transforms.fluorescence import dff as dff
from seqvae.data.transforms.neurons import DropDuplicates as DropDuplicates
from seqvae.data.transforms.neurons import SelectNeurons as SelectNeurons
from seqvae.data.transforms.neurons import drop_duplicates as drop_duplicates
from seqvae.data.transforms.neurons import select_neurons as select_neurons
from seqvae.data.transforms.rebinning import Rebin as Rebin
from seqvae.data.transforms.rebinning import rebin as rebin
from seqvae.data.transforms.scaling import ZScore as ZScore
from seqvae.data.transforms.scaling import zscore as zscore
from seqvae.data.transforms.smoothing import Smooth as Smooth
from seqvae.data.transforms.smoothing import smooth as smooth
