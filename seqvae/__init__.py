"""Sequential variational autoencoders for neural time series.

The names that ``__init__.pyi`` lists are imported when they are first used, so that
``import seqvae`` costs nothing.
"""

import lazy_loader

_imported, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """Import a public name from its home; ask the installed package for its version."""
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    return _imported(name)
