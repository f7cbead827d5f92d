"""The networks: architecture only, no files, devices or dtypes."""
