"""Regions, crops and the reader. A stand-in network reads where it is from the colours of a ramp image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from personalive.errors import InputError
from personalive.models.face_reader import BLENDSHAPES, LANDMARKS, FaceBlendshapes, FaceLandmarks
from personalive.vision.config import FaceReaderConfig
from personalive.vision.face_landmarks import (
    BLENDSHAPE_NAMES,
    CROP_SIDE_PX,
    FaceReader,
    FaceReading,
    FaceRegion,
    crop_region,
    region_of_box,
    region_of_landmarks,
)
from personalive.vision.faces import FaceBox

CONFIG = FaceReaderConfig()
SIDE = 256  # of the ramp image, so that a level of red is a pixel in x and one of green a pixel in y
REGIONS = [FaceRegion(128, 120, 100), FaceRegion(110, 140, 80, 0.4), FaceRegion(130, 130, 120, -2.5)]

regions = st.builds(
    FaceRegion,
    st.floats(-500, 2500),
    st.floats(-500, 2500),
    st.floats(20, 3000),
    st.floats(-math.pi, math.pi),
)


def ramp_image() -> np.ndarray:
    """Red is x, green is y, blue is full: (256, 256, 3) uint8."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.stack([x, y, np.full_like(x, 255)], axis=2).astype(np.uint8)


def face(x: float = 128, y: float = 128, radius: float = 40, angle: float = 0.0) -> np.ndarray:
    """Landmarks on an ellipsoid of a head, turned clockwise: (478, 3) float32 image pixels."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(LANDMARKS, 3))
    points *= np.array([0.8, 1.0, 0.6]) / np.linalg.norm(points, axis=1, keepdims=True)
    points[33], points[263] = (-0.5, -0.3, -0.4), (0.5, -0.3, -0.4)
    sine, cosine = math.sin(angle), math.cos(angle)
    turn = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    return (radius * points @ turn + [x, y, 0]).astype(np.float32)


def box_of(landmarks: np.ndarray, eyes: bool = True) -> FaceBox:
    (x0, y0), (x1, y1) = landmarks[:, :2].min(axis=0), landmarks[:, :2].max(axis=0)
    points = [tuple(map(float, landmarks[index, :2])) for index in (33, 263, 1, 61, 291)]
    return FaceBox(x0, y0, x1 - x0, y1 - y0, 1.0, tuple(points) if eyes else None)


class Detector:
    """One box, and a count of calls."""

    name = "stand-in"

    def __init__(self, *boxes: FaceBox) -> None:
        self.boxes, self.calls = list(boxes), 0

    def detect(self, image: np.ndarray) -> list[FaceBox]:
        self.calls += 1
        return self.boxes


class RampNetwork:
    """Finds out from a crop of the ramp image where it was taken, and puts known landmarks where they belong."""

    def __init__(self, landmarks: np.ndarray) -> None:
        self.landmarks, self.levels, self.calls = landmarks, [], 0

    def __call__(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        assert crops.shape == (1, 3, CROP_SIDE_PX, CROP_SIDE_PX)
        assert crops.dtype == torch.float32
        self.calls += 1
        red, green, blue = 255 * crops[0].double().numpy()
        v, u = np.nonzero(blue > 254.5)  # inside of the image
        if len(u) < 1000:
            return torch.zeros(1, LANDMARKS, 3), torch.tensor([-5.0])
        ones = np.stack([u, v, np.ones(len(u))], axis=1)
        affine = np.linalg.lstsq(ones, np.stack([red[v, u], green[v, u]], axis=1), rcond=None)[0]
        flat = (self.landmarks[:, :2] - affine[2]) @ np.linalg.inv(affine[:2])
        depth = self.landmarks[:, 2:] / math.sqrt(abs(np.linalg.det(affine[:2])))
        self.levels.append(math.atan2(*(flat[263] - flat[33])[::-1]))
        found = torch.from_numpy(np.concatenate([flat, depth], axis=1)).float()[None]
        return found, torch.tensor([5.0])


def blendshapes_of(landmarks: Tensor) -> Tensor:
    """Stand-in coefficients that tell the landmarks apart."""
    return torch.sigmoid(landmarks[:, :BLENDSHAPES, 0] / 256)


def reader(landmarks: np.ndarray, detector: Detector) -> tuple[FaceReader, RampNetwork]:
    network = RampNetwork(landmarks)
    return FaceReader(network, blendshapes_of, detector), network


# --- regions and crops --------------------------------------------------------------------------------------


@given(regions)
def test_landmarks_go_into_the_crop_and_back(region: FaceRegion):
    points = region.side_px * np.random.default_rng(1).normal(size=(20, 3)) / 3 + [region.x, region.y, 0]
    affine = region.image_to_crop()
    scale = CROP_SIDE_PX / region.side_px
    inside = np.concatenate([points[:, :2] @ affine[:, :2].T + affine[:, 2], scale * points[:, 2:]], axis=1)
    back = region.to_image(inside)
    assert back.dtype == np.float32
    assert np.abs(back - points).max() < 0.01


def test_the_corners_of_an_upright_region_are_those_of_the_crop():
    region = FaceRegion(100, 60, 50)
    corners = np.array([[0, 0, 0], [256, 0, 10.24], [256, 256, 0]], np.float32)
    np.testing.assert_allclose(region.to_image(corners), [[75, 35, 0], [125, 35, 2], [125, 85, 0]], atol=1e-4)


def test_a_turned_region_turns_its_crop_upright():
    quarter = FaceRegion(100, 60, 50, math.pi / 2)
    right_in_crop = quarter.to_image(np.array([[256, 128, 0]], np.float32))
    np.testing.assert_allclose(right_in_crop, [[100, 85, 0]], atol=1e-4)  # down in the image


@pytest.mark.parametrize("region", REGIONS)
def test_crops_show_what_the_transform_says(region: FaceRegion):
    crop = crop_region(ramp_image(), region).astype(np.float64)
    assert crop.shape == (CROP_SIDE_PX, CROP_SIDE_PX, 3)
    v, u = np.mgrid[:CROP_SIDE_PX, :CROP_SIDE_PX]
    points = np.stack([u.ravel(), v.ravel(), np.zeros(u.size)], axis=1)
    expected = region.to_image(points)[:, :2].reshape(CROP_SIDE_PX, CROP_SIDE_PX, 2)
    assert np.abs(crop[..., :2] - expected).max() < 0.6  # rounding to levels, and to OpenCV's 32nds of a pixel
    assert np.abs((crop[..., :2] - expected).mean(axis=(0, 1))).max() < 0.03


def test_crops_are_black_outside_the_image():
    crop = crop_region(ramp_image(), FaceRegion(0, 128, 100))
    assert (crop[:, :126] == 0).all()
    assert (crop[:, 131:, 2] == 255).all()


@pytest.mark.parametrize("degrees", [0, 20, -35, 90, 170])
def test_the_region_of_landmarks_is_level_with_the_eyes_and_half_as_large_again(degrees: float):
    landmarks = face(angle=math.radians(degrees))
    region = region_of_landmarks(landmarks, CONFIG)
    assert region.angle == pytest.approx(math.radians(degrees), abs=1e-5)
    extent = landmarks[:, :2].max(axis=0) - landmarks[:, :2].min(axis=0)
    assert region.side_px == pytest.approx(1.5 * extent.max(), rel=1e-5)
    affine = region.image_to_crop()
    eyes = landmarks[[33, 263], :2] @ affine[:, :2].T + affine[:, 2]
    assert eyes[0, 1] == pytest.approx(eyes[1, 1], abs=1e-3)
    assert eyes[0, 0] < eyes[1, 0]


def test_the_region_of_a_box_turns_with_the_eyes_and_lies_towards_the_chin():
    box = FaceBox(100, 100, 60, 80, 1.0)
    upright = region_of_box(box, CONFIG)
    assert upright == FaceRegion(130, 140 + 80 * CONFIG.box_down_shift, 80 * CONFIG.box_scale)
    left_ear_down = ((130.0, 110.0), (130.0, 150.0), (120.0, 130.0), (110.0, 120.0), (110.0, 140.0))
    turned = region_of_box(FaceBox(100, 100, 60, 80, 1.0, left_ear_down), CONFIG)
    assert turned.angle == pytest.approx(math.pi / 2)
    assert (turned.x, turned.y) == pytest.approx((130 - 80 * CONFIG.box_down_shift, 140))


def test_landmarks_all_in_one_place_still_have_a_region():
    assert region_of_landmarks(np.zeros((LANDMARKS, 3), np.float32), CONFIG).side_px > 0


# --- the reader ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eyes", [True, False])
@pytest.mark.parametrize("degrees", [0, 30, -70])
def test_a_face_is_read_where_it_is_however_it_is_turned(degrees: float, eyes: bool):
    landmarks = face(120, 135, angle=math.radians(degrees))
    ours, network = reader(landmarks, Detector(box_of(landmarks, eyes)))
    reading = ours.read(ramp_image())
    assert reading is not None
    assert np.abs(reading.landmarks - landmarks).max() < 0.1
    assert reading.presence == pytest.approx(1 / (1 + math.exp(-5)))
    assert network.levels[0] == pytest.approx(0 if eyes else math.radians(degrees), abs=0.01)
    assert network.levels[-1] == pytest.approx(0, abs=0.01)


def test_tracking_equals_detecting_and_needs_no_detector():
    landmarks = face(120, 135, angle=0.3)
    detector = Detector(box_of(landmarks))
    ours, network = reader(landmarks, detector)
    image = ramp_image()
    first = ours.read(image)
    assert (detector.calls, network.calls) == (1, 1 + CONFIG.refinements)
    again = ours.read(image, first)
    assert (detector.calls, network.calls) == (1, 2 + CONFIG.refinements)
    assert first is not None and again is not None
    np.testing.assert_allclose(again.landmarks, first.landmarks, atol=0.1)
    np.testing.assert_allclose(again.blendshapes, first.blendshapes, atol=1e-3)


def test_a_lost_face_is_searched_for_and_a_face_that_is_not_there_is_none():
    landmarks = face()
    gone = FaceReading(face(2000, 2000), np.zeros(BLENDSHAPES, np.float32), 1.0)
    detector = Detector(box_of(landmarks))
    found = reader(landmarks, detector)[0].read(ramp_image(), gone)
    assert found is not None and detector.calls == 1
    assert np.abs(found.landmarks - landmarks).max() < 0.1
    assert reader(landmarks, Detector())[0].read(ramp_image(), gone) is None
    assert reader(landmarks, Detector(FaceBox(900, 900, 50, 50, 1.0)))[0].read(ramp_image()) is None


def test_reading_changes_no_state():
    landmarks = face()
    ours, _ = reader(landmarks, Detector(box_of(landmarks)))
    image = ramp_image()
    first = ours.read(image)
    assert first is not None
    kept = first.landmarks.copy()
    one, other = ours.read(image, first), ours.read(image, first)
    assert one is not None and other is not None
    assert np.array_equal(one.landmarks, other.landmarks)
    assert np.array_equal(first.landmarks, kept)


def test_our_networks_fit_the_reader():
    torch.manual_seed(0)
    networks = FaceLandmarks().eval(), FaceBlendshapes().eval()
    ours = FaceReader(*networks, Detector(FaceBox(80, 80, 90, 90, 1.0)), FaceReaderConfig(min_presence=0))
    one, other = ours.read(ramp_image()), ours.read(ramp_image())
    assert one is not None and other is not None
    assert one.landmarks.shape == (LANDMARKS, 3)
    assert one.blendshapes.shape == (BLENDSHAPES,)
    assert one.landmarks.dtype == one.blendshapes.dtype == np.float32
    assert np.array_equal(one.landmarks, other.landmarks)
    assert np.array_equal(one.blendshapes, other.blendshapes)


def test_blendshapes_have_names():
    assert len(set(BLENDSHAPE_NAMES)) == BLENDSHAPES
    reading = FaceReading(face(), np.arange(BLENDSHAPES, dtype=np.float32), 1.0)
    assert reading.blendshape("_neutral") == 0
    assert reading.blendshape("eyeBlinkLeft") == 9
    assert reading.blendshape("jawOpen") == 25
    assert reading.blendshape("mouthSmileRight") == 45
    with pytest.raises(KeyError):
        reading.blendshape("smile")


def test_other_arrays_than_images_are_refused():
    ours, _ = reader(face(), Detector())
    with pytest.raises(InputError, match="uint8"):
        ours.read(np.zeros((10, 10, 3), np.float32))  # pyright: ignore[reportArgumentType]
