"""Parts of ``speed.py``: its candidates, its clocks, and what it writes."""
