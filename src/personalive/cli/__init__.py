"""The command line: parse, then one call. Nothing heavy is imported before a command runs."""
