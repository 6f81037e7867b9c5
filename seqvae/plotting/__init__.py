"""Pictures of data and results: labelled arrays in, matplotlib figures out.

Those of a fitted model take the posterior data set, as ``infer`` returns it, which carries the
recorded ``activity`` beside what was inferred of it; their titles tell its model, split and score.
Where the recording knows an event, it is time 0.

Every function returns a ``matplotlib.figure.Figure`` that belongs to no window and no global state;
``figure.savefig(path)`` writes it at 150 dots per inch, and a notebook shows it as it is.
"""

from seqvae.plotting.activity import rasters_and_rates as rasters_and_rates
from seqvae.plotting.activity import rate_traces as rate_traces
from seqvae.plotting.aggregate import aggregate_posterior as aggregate_posterior
from seqvae.plotting.conditions import psth as psth
from seqvae.plotting.dimension_panel import dimension_panel as dimension_panel
from seqvae.plotting.dimensions import dimension_curve as dimension_curve
from seqvae.plotting.growth import growth_curve as growth_curve
from seqvae.plotting.images import image_grid as image_grid
from seqvae.plotting.images import image_manifold as image_manifold
from seqvae.plotting.images import reconstructions as reconstructions
from seqvae.plotting.latents import inferred_inputs as inferred_inputs
from seqvae.plotting.latents import latent_scatter as latent_scatter
from seqvae.plotting.latents import latents as latents
from seqvae.plotting.learning import learning_curves as learning_curves
from seqvae.plotting.lineage import lineage as lineage
from seqvae.plotting.posteriors import posterior_comparison as posterior_comparison
from seqvae.plotting.posteriors import rank_histograms as rank_histograms
from seqvae.plotting.search import search_history as search_history
from seqvae.plotting.states import discrete_states as discrete_states
