"""Where recordings come from: one file per format."""

from seqvae.data.sources.arrays import Arrays as Arrays
from seqvae.data.sources.base import RecordingSource as RecordingSource
from seqvae.data.sources.digits import Digits as Digits
from seqvae.data.sources.front import as_source as as_source
from seqvae.data.sources.hdf5 import HDF5 as HDF5
from seqvae.data.sources.hdf5 import write_hdf5 as write_hdf5
from seqvae.data.sources.images import Images as Images
from seqvae.data.sources.images import read_idx as read_idx
from seqvae.data.sources.limit_cycle import LimitCycle as LimitCycle
from seqvae.data.sources.lorenz import Lorenz as Lorenz
from seqvae.data.sources.mat import MAT as MAT
from seqvae.data.sources.npy import Npy as Npy
from seqvae.data.sources.npz import Npz as Npz
from seqvae.data.sources.npz import write_npz as write_npz
from seqvae.data.sources.nwb import NWB as NWB
from seqvae.data.sources.paths import from_path as from_path
from seqvae.data.sources.sessions import Sessions as Sessions
from seqvae.data.sources.simulated import LinearSimulation as LinearSimulation
from seqvae.data.sources.simulated import SimulatedLinearDynamics as SimulatedLinearDynamics
from seqvae.data.sources.spike_times import SpikeTimes as SpikeTimes
