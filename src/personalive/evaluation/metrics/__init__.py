"""Metrics: pure functions (functional), accumulators over a case, pretrained networks, and how each is shown."""
