"""Training: one loop, its stages, and the data that they draw from."""
