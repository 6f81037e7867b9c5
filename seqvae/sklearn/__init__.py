"""Every model as a scikit-learn estimator: fit, transform, inverse_transform, score."""

from seqvae.sklearn.transformer import LatentTransformer as LatentTransformer
