"""A folder of ordinary videos becomes a training set: framed clips, boxes, an index and a report."""
