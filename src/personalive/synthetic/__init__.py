"""Talking heads, rendered or made from photographs, with ground truth: images, keypoints, pose, expression, masks."""

from personalive.synthetic.identity import HAIR_STYLES, IDENTITY_VECTOR_SIZE, Identity
from personalive.synthetic.model import KEYPOINT_NAMES
from personalive.synthetic.motion import EXPRESSION_NAMES, Motion
from personalive.synthetic.performance import Performance
from personalive.synthetic.photo_head import PhotoHead
from personalive.synthetic.photo_heads import PhotoHeads
from personalive.synthetic.renderer import Render, render

__all__ = [
    "EXPRESSION_NAMES",
    "HAIR_STYLES",
    "IDENTITY_VECTOR_SIZE",
    "KEYPOINT_NAMES",
    "Identity",
    "Motion",
    "Performance",
    "PhotoHead",
    "PhotoHeads",
    "Render",
    "render",
]
