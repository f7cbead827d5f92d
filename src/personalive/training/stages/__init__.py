"""Stages of training: samples, losses and images of each."""
