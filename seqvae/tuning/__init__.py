"""A search of settings: what may vary, what is tried next, what came of it."""

from seqvae.tuning.population import evolution as evolution
from seqvae.tuning.proposals import proposals as proposals
from seqvae.tuning.rounds import Task as Task
from seqvae.tuning.rounds import rounds as rounds
from seqvae.tuning.space import Choice as Choice
from seqvae.tuning.space import Interval as Interval
from seqvae.tuning.space import Space as Space
from seqvae.tuning.space import as_space as as_space
from seqvae.tuning.space import default_space as default_space
from seqvae.tuning.study import Record as Record
from seqvae.tuning.study import Study as Study
from seqvae.tuning.waiting import wait_for as wait_for
