"""Frames and tensors: keypoint geometry, canvas and face box, crops, framing."""
