"""``python -m seqvae`` is the command line."""

from seqvae.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
