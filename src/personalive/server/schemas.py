"""Requests and answers of the HTTP API, and the messages of its WebSockets (docs/protocol.md).

Answers forbid fields that they do not name, so that a new one cannot go out undescribed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, WithJsonSchema

from personalive.engine.controls import PoseMode
from personalive.live.controls import control_ranges
from personalive.live.errors import ErrorKind
from personalive.live.session import Driver
from personalive.live.worker import State as WorkerState
from personalive.offline.options import AnimateOptions
from personalive.server.jobs import SERVER_OPTIONS, JobState
from personalive.vision.paste_back import OutputFrame

Number = Annotated[int | float, WithJsonSchema({"type": "number"})]  # whole numbers stay as they were sent


class Request(BaseModel):
    """Base of requests: unknown fields and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Answer(BaseModel):
    """Base of answers."""

    model_config = ConfigDict(extra="forbid")


# --- errors ---------------------------------------------------------------------------------------------------


class Error(Answer):
    """Refusal, in one line for a person; ``ticket`` and ``position`` are those of a full server."""

    kind: ErrorKind
    message: str
    retry_after_s: Number | None = None
    ticket: str | None = None
    position: int | None = None


class ErrorAnswer(Answer):
    """Body of every answer from status 400 on."""

    error: Error


# --- status ---------------------------------------------------------------------------------------------------


class SessionCounts(Answer):
    """Sessions of the server."""

    open: int
    limit: int
    waiting: int


class Health(Answer):
    """Answer to a probe; a failed one is an error."""

    status: Literal["live", "ready"]


class Limits(Answer):
    """Largest uploads and frames."""

    portrait_bytes: int
    portrait_pixels: int
    clip_bytes: int
    template_bytes: int
    recording_bytes: int
    frame_bytes: int
    frame_pixels: int


class ControlRange(Answer):
    """Default of a control, and the ends of its range where it is a number."""

    default: Number | bool | str | None
    min: Number | None = None
    max: Number | None = None


class Status(Answer):
    """State, model, speed, load and limits of the server."""

    version: str
    state: WorkerState
    message: str
    progress: float | None
    model: str | None
    device: str | None
    dtype: str | None
    backend: str | None
    image_size_px: int | None
    chunk_frames: int | None
    warmup_frames: int | None
    drawn_heads_only: bool
    step_ms: float | None
    frames_per_s: float | None
    sessions: SessionCounts
    limits: Limits
    controls: dict[str, ControlRange]
    webrtc: bool
    credentials: bool
    ice_servers: list[str]


# --- sessions -------------------------------------------------------------------------------------------------


class OpenSession(Request):
    """Seed, place in the queue, and the view key of an earlier session."""

    seed: int = Field(0, ge=0, lt=2**63)
    ticket: str | None = Field(None, max_length=64)
    view_key: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{24,64}$")


class OpenedSession(Answer):
    """New session."""

    id: str
    key: str
    view_key: str
    image_size_px: int
    idle_s: float


class ChangeSession(Request):
    """Fields of a session to change."""

    playing: bool | None = None
    driver: Driver | None = None
    loop: bool | None = None


def _add_ranges(schema: dict[str, Any]) -> None:
    for name, found in control_ranges().items():
        if "min" in found:
            schema["properties"][name] |= {"minimum": found["min"], "maximum": found["max"]}


class Controls(Answer):
    """All controls of a session."""

    model_config = ConfigDict(json_schema_extra=_add_ranges)

    expression: Number
    mouth: Number
    eyes: Number
    head_motion: Number
    pose: PoseMode
    smoothing: Number
    seed: int
    mirror: bool
    visible_mark: bool
    output_frame: OutputFrame
    driving_fps: Number | None
    keyframes: bool
    keyframe_threshold: Number
    steps: int | None
    delay_ms: Number


class SessionState(Answer):
    """State of a session."""

    playing: bool
    driver: Driver
    stage: Literal["empty", "waiting", "live", "paused"]
    controls: Controls
    message: str
    portrait: bool
    generation: int
    face: bool | None
    recording: bool


# The values are checked by ``LiveControls`` and ``AnimateOptions``, as those of Python callers are.
ControlChanges = Annotated[
    dict[str, Any], WithJsonSchema({**Controls.model_json_schema(), "title": "ControlChanges", "required": []})
]


# --- media ----------------------------------------------------------------------------------------------------


class GalleryItem(Answer):
    """Bundled portrait or clip."""

    name: str
    title: str
    kind: Literal["portrait", "clip"]


class PortraitAnswer(Answer):
    """Remark on how the portrait was framed, mostly empty, and its generation."""

    note: str
    generation: int


class DriverAnswer(Answer):
    """Length and rate of a clip or motion file."""

    duration_s: float | None
    fps: float


class ChangeRecording(BaseModel):
    """Begin or end recording the motion."""

    recording: bool


# --- jobs -----------------------------------------------------------------------------------------------------


def _job_options_schema() -> dict[str, Any]:
    schema = TypeAdapter(AnimateOptions).json_schema()
    for name in SERVER_OPTIONS:
        del schema["properties"][name]
    return {**schema, "title": "JobOptions", "additionalProperties": False}


JobOptions = Annotated[dict[str, Any], WithJsonSchema(_job_options_schema())]


class OpenedJob(Answer):
    """New job."""

    id: str
    key: str


class JobAnswer(Answer):
    """State and progress of a job."""

    state: JobState
    portrait: bool
    clip: bool
    frames: int
    total: int | None
    fps: float | None
    left_s: float | None
    error: Error | None
    warnings: list[str]


# --- WebSocket messages ---------------------------------------------------------------------------------------


class Percentiles(Answer):
    """Median and 95th percentile, milliseconds; null before the first sample."""

    p50: float | None
    p95: float | None


class Latency(Answer):
    """Time of finished frames in each stage."""

    queue: Percentiles
    window: Percentiles
    compute: Percentiles
    pace: Percentiles


class Stats(Answer):
    """Rates, drops and delays of a session over the last seconds."""

    frames_per_s: float
    camera_fps: float
    floor_ms: float | None
    latency_ms: Latency
    dropped_driving: int
    dropped_viewer: int
    keyframes: int
    step_ms: float | None
    driving_fps: float | None


class StateMessage(Answer):
    """State of the session, after every change."""

    type: Literal["state"]
    state: SessionState


class StatsMessage(Answer):
    """Metrics of the session, once a second."""

    type: Literal["stats"]
    stats: Stats


class ErrorMessage(Answer):
    """Refusal of a frame or message, or of the socket itself."""

    type: Literal["error"]
    error: Error


class PongMessage(Answer):
    """Answer to a ping."""

    type: Literal["pong"]
    at_ms: Number


class MovedMessage(Answer):
    """The session goes on on another server of a cluster: a clip is to be sent and WebRTC to be offered again."""

    type: Literal["moved"]
    reason: str


class EndedMessage(Answer):
    """Last message before the server closes the socket."""

    type: Literal["ended"]
    reason: str


Message = Annotated[
    StateMessage | StatsMessage | ErrorMessage | PongMessage | MovedMessage | EndedMessage,
    Field(discriminator="type"),
]
