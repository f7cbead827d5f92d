"""Engine of photographs: a face read by networks, a portrait moved by the geometry of its own face (ours).

No denoiser and no frames in flight: a frame is finished by the step that takes its driver. The portrait's pixels are
borrowed wherever they show, so a result is as sharp as the portrait at its side.

Letters: F frames, S image side, B blendshapes (52), E expression values of the morphable face.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from personalive.config import FULL, KeyframeConfig, ModelConfig, MotionEncoderConfig
from personalive.engine.base import PLAIN, BaseEngine, check_square
from personalive.engine.controls import Controls
from personalive.engine.state import Motion, Window
from personalive.errors import InputError
from personalive.vision.face_cover import covered_parts
from personalive.vision.face_fit import Fit, angles_deg, fit_face, fit_pose, rotation_of
from personalive.vision.face_landmarks import BLENDSHAPE_NAMES, FaceReader, FaceReading, framed_readings
from personalive.vision.face_model import face_model
from personalive.vision.face_move import FaceMotion, moved_image
from personalive.vision.face_person import person_mask
from personalive.vision.face_portrait import MovablePortrait, movable_portrait
from personalive.vision.face_transfer import (
    JAW_TRIED,
    TURN_LIMIT_DEG,
    driver_neutral,
    face_values,
    limited_turn,
    transferred,
)
from personalive.vision.keypoints import HeadPose
from personalive.vision.one_euro import POSE_CALM, OneEuro, OneEuroConfig, pose_values
from personalive.vision.resize import ImageArray, resize_portrait

BLENDSHAPES = len(BLENDSHAPE_NAMES)
_TOKEN = BLENDSHAPES + 1  # and whether there was a face
_KEYPOINTS = 21
_SEEN_FRAMES = 250  # of a driver, from which its usual face is known: 10 s
_PLACED_FRAMES = 50  # and its usual nod
_SHUT_JAW = 0.03  # most that is read of a shut mouth: a stream may begin with an open one
_ASIDE_DEG, _SMALL_SIDE_PX = 20.0, 200  # portraits turned further, or framed smaller, are said to be poor
_TRIED_PX = 256  # side of the images in which the portrait's mouth is read
_OPEN_JAW, _SHUT_LIDS = 0.2, 0.55  # values of a portrait from which its mouth is open and its eyes are shut
_PROFILE_SHARE = 0.05  # of a driver's frames, from which it is told that its turns are held
_SCALE_RANGE = (0.7, 1.4)  # of the head, relative to the portrait's
_CALM_VALUES = OneEuroConfig(min_cutoff=4 / 15, speed_gain=60.0)  # chosen on noisy drivers of 15 frames a second
_MOUTH, _EYES = ("jaw", "mouth"), ("eyeBlink", "eyeWide", "eyeSquint")

CONFIG = ModelConfig(
    image_size_px=512,
    chunk_frames=1,  # no frame waits for others
    framing_scale=2.2,
    translation_gain=1.0,
    scale_gain=1.0,
    interpolated_start=False,
    motion_encoder=MotionEncoderConfig(tokens=1, token_width=_TOKEN),
)


@dataclass(frozen=True, eq=False)
class Driver:
    """A driver as far as it was seen, for what is usual of its face and pose.

    Attributes:
        values: (n, E) expression values of at most ``_SEEN_FRAMES`` frames.
        places: (m, 6) yaw, pitch, roll in degrees, shift x and y in half image sides, scale; of at most
            ``_PLACED_FRAMES`` frames.
    """

    values: np.ndarray
    places: np.ndarray

    def seen(self, values: np.ndarray, place: np.ndarray) -> Driver:
        """The same driver, seen for one frame more."""
        return Driver(
            np.concatenate([self.values, values[None]])[:_SEEN_FRAMES],
            np.concatenate([self.places, place[None]])[:_PLACED_FRAMES],
        )

    @property
    def usual_turn(self) -> np.ndarray:
        """(3, 3) rotation that counts as none: towards the camera, with the nod that it begins with.

        How high a camera stands, and how a face's depth is read, shows in the nod; yaw and roll are true.
        """
        return rotation_of(0.0, float(self.places[:, 1].mean()), 0.0)


@dataclass(frozen=True, eq=False)
class FaceState:
    """Everything of one stream between two steps."""

    portrait: MovablePortrait
    rest: FaceMotion  # of a driver who does nothing
    jaw_read: np.ndarray | None = None  # off the portrait, see ``transferred``
    driver: Driver | None = None
    calm: tuple[OneEuro, OneEuro] | None = None  # filters of the driver's values (E,) and place (6,)
    last: tuple[np.ndarray, np.ndarray] | None = None  # smoothed values (E,) and place (6,) of the newest frame
    motion: FaceMotion | None = None  # of the newest frame with a face
    notes: tuple[str, ...] = ()  # about the portrait
    frames: int = 0  # of the driver with a face
    profiles: int = 0  # of those, how many turn further than the portrait may
    call: int = 0  # finished steps
    seed: int = 0  # as of a diffusion stream; nothing here is drawn
    keyframe_threshold: float = KeyframeConfig.threshold  # and no frame becomes a reference
    keyframes: int = field(default=0, init=False)
    warmup_frames: int = field(default=0, init=False)


class FaceEngine(BaseEngine):
    """Moves photographs."""

    filters_motion = True

    def __init__(
        self,
        reader: FaceReader,
        networks: tuple[nn.Module, nn.Module, nn.Module] | None = None,
        *,
        config: ModelConfig = CONFIG,
        name: str = "",
        folder: Path | None = None,
    ) -> None:
        """
        Args:
            reader: of faces, in portraits and drivers.
            networks: of landmarks and blendshapes, which it reads them with, and of person masks; without the last a
                portrait moves as one piece.
        """
        self.reader, self.config = reader, config
        self._motion_networks, self._person = (networks[:2], networks[2]) if networks else ((), None)
        self.name, self.folder, self.memory = name, folder, FULL
        self.device, self.dtype = torch.device("cpu"), torch.float32

    @property
    def max_steps(self) -> int:
        """None: there is no denoiser, and nothing is in flight."""
        return 0

    @property
    def motion_networks(self) -> tuple[nn.Module, ...]:
        """Networks of landmarks and blendshapes."""
        return self._motion_networks

    @property
    def facts(self) -> dict[str, str]:
        """See ``BaseEngine.facts``."""
        return {"dtype": "float32", "backend": "geometry", "vram": self.memory.name, "decoder": "none"}

    def check(self, controls: Controls) -> None:
        """Accept all controls: each is a change of numbers here."""

    def warm_up(self, calls: int, clock, *, steps: int | None = None) -> list[float]:
        """Read grey images, in which there is no face; the times of that say nothing, so none is given."""
        grey = np.full((self.image_size, self.image_size, 3), 128, np.uint8)
        self.reader.read(grey)
        return []

    # --- the stream -----------------------------------------------------------------------------------

    def start(
        self,
        portrait: np.ndarray,
        *,
        seed: int = 0,
        keyframe_threshold: float = KeyframeConfig.threshold,
        steps: int | None = None,
    ) -> FaceState:
        """Begin a stream.

        Args:
            portrait: (H, W, 3) uint8 RGB, square and already framed.
            seed, keyframe_threshold: of no effect: nothing here is drawn, and no frame becomes a reference.
            steps: None.

        Raises:
            InputError: a portrait of the wrong shape, or in which no face is found; any number of steps.
        """
        self.check_steps(steps)
        check_square(portrait, (3,), "portrait")
        image = resize_portrait(portrait, self.image_size)
        reading = self.reader.read(image)
        if reading is None:
            raise InputError(
                "no face is found in the portrait: give a photograph that shows one face from the front, or use "
                "--weights tiny for synthetic heads"
            )
        fit = fit_face(reading.landmarks)
        mask = None if self._person is None else person_mask(image, reading.landmarks, self._person)
        prepared = movable_portrait(image, fit, mask)
        nothing = np.zeros(len(face_model().expression_names), np.float32)
        return FaceState(
            prepared,
            FaceMotion(nothing),
            jaw_read=self._jaw_read(prepared, reading),
            notes=tuple(_portrait_notes(image, reading, fit, portrait.shape[0])),
            seed=seed,
            keyframe_threshold=keyframe_threshold,
        )

    def _jaw_read(self, portrait: MovablePortrait, reading: FaceReading) -> np.ndarray | None:
        """``jawOpen`` as read off the portrait at ``JAW_TRIED``; None where its face is not found again."""
        model, found = face_model(), list[float]()
        near = dataclasses.replace(reading, landmarks=reading.landmarks * (_TRIED_PX / self.image_size))
        for value in JAW_TRIED:
            expression = np.zeros(len(model.expression_names), np.float32)
            expression[model.index("jawOpen")] = value
            seen = self.reader.read(moved_image(portrait, FaceMotion(expression), _TRIED_PX), near)
            if seen is None:
                return None
            found.append(seen.blendshape("jawOpen"))
        return np.array(found)

    def notes(self, state: FaceState) -> list[str]:
        """Reasons why the portrait is a poor one, and a driver that turns further than a photograph may."""
        found = list(state.notes)
        if state.profiles > _PROFILE_SHARE * state.frames:
            share = round(100 * state.profiles / state.frames)
            found.append(
                f"driver: its head turns further than a photograph can follow in {share} % of the frames; turns are "
                f"held at {TURN_LIMIT_DEG[0]:.0f}° to a side and {TURN_LIMIT_DEG[1]:.0f}° up and down"
            )
        return found

    def encode_motion(self, frames: np.ndarray) -> Motion:
        """Motion of driving frames, which ``step`` takes in their place, may be kept, and fits any portrait.

        Tokens are the blendshapes and whether there was a face; poses the head's, of the average face.

        Raises:
            InputError: frames of the wrong shape or kind.
        """
        check_square(frames, (len(frames) if isinstance(frames, np.ndarray) else 0, 3), "frames")
        # Each window is read from the same start, whatever came before it.
        readings: list[FaceReading | None] = [self.reader.read(frames[0], *framed_readings(frames.shape[1]))]
        for number, frame in enumerate(frames):
            readings.append(self.reader.read(frame, readings[number]))
        readings = readings[1:]
        tokens = np.stack([_token(reading) for reading in readings])
        places = np.stack([_place(reading, frames.shape[1]) for reading in readings])
        yaw, pitch, roll, x, y, scale = torch.from_numpy(places.astype(np.float32)).unbind(1)
        pose = HeadPose(
            kp=torch.zeros(len(frames), _KEYPOINTS, 3),
            yaw=yaw,
            pitch=pitch,
            roll=roll,
            t=torch.stack([x, y, torch.zeros_like(x)], dim=1),
            scale=scale[:, None],
        )
        return Motion(torch.from_numpy(tokens)[None, :, None], pose)

    def prepared(self, window: Window) -> Window:
        """See ``BaseEngine.prepared``: the driver is read, by one thread at a time."""
        if isinstance(window.driver, Motion):
            return window
        return dataclasses.replace(window, driver=self.encode_motion(window.driver))

    def step(
        self, state: FaceState, window: np.ndarray | Motion, *, cut: int | None = None, controls: Controls = PLAIN
    ) -> tuple[FaceState, Tensor]:
        """Move the portrait by one chunk of driving frames.

        Args:
            window: (F, H, W, 3) uint8 RGB, square and already framed, or the motion of such frames.
            cut: number of the frame that begins a new shot: another driver, as far as anybody knows.
            controls: how the motion reaches the portrait. An absolute pose turns the
                portrait as the driver is turned to its camera.

        Returns:
            The next state, and frames (F, S, S, 3) uint8 on the CPU.

        Raises:
            InputError: a window of the wrong shape or kind, or a cut outside the window.
        """
        self._check_window(window, cut)
        motion = window if isinstance(window, Motion) else self.encode_motion(window)
        tokens = motion.tokens[0, :, 0].float().cpu().numpy()
        values = face_values(tokens[:, :BLENDSHAPES], BLENDSHAPE_NAMES)
        places = pose_values(motion.poses)
        images = []
        for number in range(self.chunk_frames):
            if number == cut:
                state = dataclasses.replace(state, driver=None, calm=None, last=None)
            if tokens[number, -1] >= 0.5:
                state = _followed(state, values[number], places[number], controls)
            images.append(moved_image(state.portrait, state.motion or state.rest, self.image_size))
        return dataclasses.replace(state, call=state.call + 1), torch.from_numpy(np.stack(images))

    def flush(self, state: FaceState) -> Iterator[Tensor]:
        """Nothing: no frame is in flight."""
        yield from ()


# --- a driver's frame on the portrait -------------------------------------------------------------------------


def _token(reading: FaceReading | None) -> np.ndarray:
    if reading is None:
        return np.zeros(_TOKEN, np.float32)
    return np.append(reading.blendshapes, np.float32(1.0)).astype(np.float32)


def _place(reading: FaceReading | None, side_px: int) -> np.ndarray:
    """(6,) as ``pose_values`` gives them; shift from the middle."""
    if reading is None:
        return np.array([0, 0, 0, 0, 0, 1.0])
    pose = fit_pose(reading.landmarks)
    half = side_px / 2
    return np.concatenate([angles_deg(pose.rotation), pose.shift_px / half - 1, [pose.scale_px / half]])


def _followed(state: FaceState, values: np.ndarray, place: np.ndarray, controls: Controls) -> FaceState:
    """The state after one driving frame with a face."""
    if state.calm is None:
        calm = OneEuro.at(_CALM_VALUES, values), OneEuro.at(POSE_CALM, place)
    else:
        calm = state.calm[0].next(values), state.calm[1].next(place)
    values, place = (found.value for found in calm)
    if state.last is not None and controls.smoothing:
        kept = controls.smoothing
        values = kept * state.last[0] + (1 - kept) * values
        place = kept * state.last[1] + (1 - kept) * place
    before = state.driver or Driver(np.empty((0, len(values)), np.float32), np.empty((0, len(place))))
    driver = before.seen(values, place)
    neutral, first = driver_neutral(driver.values), driver.places[0]
    jaw = face_model().index("jawOpen")
    neutral[jaw] = min(neutral[jaw], _SHUT_JAW)
    changed = neutral + _strengths(controls) * (values - neutral)
    base = driver.usual_turn if controls.pose == "absolute" else rotation_of(*first[:3])
    turn = cv2.Rodrigues(rotation_of(*place[:3]) @ base.T)[0] * controls.head_motion
    nod_deg, side_deg = np.abs(np.degrees(turn[:2, 0]))
    profile = side_deg > TURN_LIMIT_DEG[0] or nod_deg > TURN_LIMIT_DEG[1]
    scale, shift = place[5] / first[5], (place[3:5] - first[3:5]) / 2
    motion = transferred(
        changed,
        neutral,
        rest=state.portrait.fit.expression,
        jaw_read=state.jaw_read,
        rotation=limited_turn(cv2.Rodrigues(turn)[0]),
        scale=float(np.clip(scale**controls.head_motion, *_SCALE_RANGE)),
        shift=(float(controls.head_motion * shift[0]), float(controls.head_motion * shift[1])),
    )
    return dataclasses.replace(
        state,
        driver=driver,
        calm=calm,
        last=(values, place),
        motion=motion,
        frames=state.frames + 1,
        profiles=state.profiles + int(profile),
    )


def _portrait_notes(image: ImageArray, reading: FaceReading, fit: Fit, side_px: int) -> Iterator[str]:
    """Reasons why a portrait is a poor one, and a better choice."""
    yaw, pitch, _ = angles_deg(fit.pose.rotation)
    if max(abs(yaw), abs(pitch)) > _ASIDE_DEG:
        yield "portrait: the face is turned aside: what it hides is made up; one that looks at the camera is better"
    if side_px < _SMALL_SIDE_PX:
        yield f"portrait: the head is small ({side_px} px with its surroundings): a larger photograph is sharper"
    if reading.blendshape("jawOpen") > _OPEN_JAW:
        yield "portrait: the mouth is open and shuts only in part: one with shut lips is better"
    if min(reading.blendshape(f"eyeBlink{side}") for side in ("Left", "Right")) > _SHUT_LIDS:
        yield "portrait: the eyes are shut and cannot open: use one with open eyes"
    elif covered := covered_parts(image, reading.landmarks):
        parts = " and ".join(covered)
        yield f"portrait: something seems to cover {parts}, and will move like skin: a bare face is better"


def _strengths(controls: Controls) -> np.ndarray:
    """(E,) factor of each expression value's change."""
    found = np.full(len(face_model().expression_names), controls.expression, np.float32)
    for k, name in enumerate(face_model().expression_names):
        found[k] *= controls.mouth if name.startswith(_MOUTH) else controls.eyes if name.startswith(_EYES) else 1.0
    return found
