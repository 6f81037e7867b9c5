"""``python -m seqvae`` is the command line."""

from seqvae.console.main import main

if __name__ == "__main__":
    raise SystemExit(main())
