"""Training data: sets of samples, and what draws them ahead of the device."""
