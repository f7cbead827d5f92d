"""The networks: architecture only, no files, devices or number formats."""
