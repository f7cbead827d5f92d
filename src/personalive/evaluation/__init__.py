"""Evaluation of models on synthetic heads with ground truth, or on videos."""
