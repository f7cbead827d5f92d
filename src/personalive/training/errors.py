"""Error of training."""

from __future__ import annotations

from personalive.errors import PersonaLiveError


class TrainingError(PersonaLiveError):
    """Training cannot go on; what was reached is kept."""
