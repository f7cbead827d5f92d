"""How good a model is, measured against synthetic ground truth."""
