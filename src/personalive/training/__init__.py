"""Training of the bundled model on synthetic heads: data, stages, one loop."""
