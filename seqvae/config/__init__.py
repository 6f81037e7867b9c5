"""Live objects <-> plain config trees, so that a notebook and a YAML file say the same thing."""

from seqvae.config.class_paths import check_trusted as check_trusted
from seqvae.config.reading import from_config as from_config
from seqvae.config.reading import open_parameters as open_parameters
from seqvae.config.reading import override as override
from seqvae.config.reading import read_arguments as read_arguments
from seqvae.config.writing import to_config as to_config
