"""Batched linear algebra of Markov chains: symmetric block-tridiagonal systems."""

from seqvae.linalg.banded import Banded as Banded
from seqvae.linalg.block_tridiagonal import BlockTridiagonal as BlockTridiagonal
from seqvae.linalg.block_tridiagonal import Conditionals as Conditionals
from seqvae.linalg.block_tridiagonal import Factor as Factor
from seqvae.linalg.block_tridiagonal import pad_time as pad_time
from seqvae.linalg.cyclic_reduction import CyclicReduction as CyclicReduction
from seqvae.linalg.factorize import factorize as factorize
from seqvae.linalg.normal_equations import normal_equations as normal_equations
from seqvae.linalg.recursions import congruence_recursion as congruence_recursion
from seqvae.linalg.recursions import linear_recursion as linear_recursion
from seqvae.linalg.roots import inverse_root as inverse_root
from seqvae.linalg.roots import inverse_triangular as inverse_triangular
from seqvae.linalg.roots import log_det_root as log_det_root
from seqvae.linalg.sequential import Sequential as Sequential
