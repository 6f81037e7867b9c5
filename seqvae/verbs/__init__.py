"""The verbs, a file each: what seqvae does for its users, in Python and on the command line."""
