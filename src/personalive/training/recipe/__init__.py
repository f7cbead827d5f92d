"""The published recipe in three stages (motion, distill, stream) for any model of the released layout."""
