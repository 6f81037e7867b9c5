"""The command line: the verbs, their arguments as dotted flags or YAML, and what is printed."""
