"""Loading a model and running its networks: backends, memory, exports."""
