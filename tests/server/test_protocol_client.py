"""The client in docs/protocol.md, run as it stands there."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.live_server import LiveServer, jpeg, png

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"


@pytest.fixture(scope="module")
def drive() -> Any:
    """Function of the document's only Python block."""
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(block.strip().splitlines()) <= 40
    found: dict[str, Any] = {}
    exec(compile(block, str(PAGE), "exec"), found)
    return found["drive"]


def test_it_opens_a_session_sends_frames_and_saves_what_comes_back(
    drive: Any, server: LiveServer, images: np.ndarray, tmp_path: Path
):
    (tmp_path / "portrait.png").write_bytes(png(images[0]))
    (tmp_path / "frames").mkdir()
    drive(server.address, tmp_path / "portrait.png", [jpeg(image) for image in images], tmp_path / "frames", 24)
    saved = sorted((tmp_path / "frames").iterdir())
    assert len(saved) == 24
    received = [np.asarray(Image.open(io.BytesIO(path.read_bytes()))) for path in saved]
    assert {image.shape for image in received} == {(64, 64, 3)}
    assert np.ptp(np.stack(received[12:]).astype(int), axis=0).max() > 10  # they move
    assert len(server.app.state.sessions) == 0  # it closed its session
