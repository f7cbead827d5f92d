"""Videos and motion files from files."""
