"""Parts of ``whole_call.py``: its contenders, its clocks, and what it writes."""
