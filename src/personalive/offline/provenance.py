"""Model that made a video or image, as its content credentials name it."""

from __future__ import annotations

from personalive.config import PHOTO, TINY
from personalive.engine.base import BaseEngine
from personalive.media.credentials import Origin
from personalive.offline.motion_file import engine_motion_digest


def origin_of(engine: BaseEngine, *, composite: bool = False) -> Origin:
    """Origin of the images that ``engine`` makes.

    A bundled model has its name. Others have the digest of their motion networks: names of folders may be personal.

    Args:
        composite: pixels of the portrait or the driver are shown beside those of the engine. A model without
            denoising steps moves the portrait's own pixels, so its images are composites in any case.
    """
    model = engine.name if engine.name in (PHOTO, TINY) else f"weights {engine_motion_digest(engine)}"
    return Origin(model=model, composite=composite or engine.max_steps == 0)
