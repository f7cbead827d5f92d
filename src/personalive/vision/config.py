"""Defaults of framing and face detection (ours unless stated)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FramingConfig:
    """Choice of the square around a head. Shares are of the detected face box's larger side."""

    portrait_scale: float = 1.9  # side of the portrait's square: head room like a portrait photo
    driving_scale: float = 1.9  # same, for the driving clip: room for the head to move
    motion_margin: float = 1.1  # side of the driving square in extents of the measured motion, at least
    up_shift: float = 0.1  # the square's centre lies this far above the face's centre
    square_tolerance: float = 0.02  # sides that differ by no more than this share count as square
    detect_side_px: int = 512  # images are shrunk to this longer side before detection
    min_score: float = 0.75  # YuNet confidence: faces tried had 0.92 and more, blurred noise up to 0.71
    min_face_share: float = 0.04  # a face narrower than this share of the image's longer side is ignored
    scene_cut_level: float = 0.35  # histogram distance (0..1) between frames that means a cut
    histogram_bins: int = 6  # per colour channel; of 4, 6 and 8 the one that tells cuts best from flicker
    same_face_overlap: float = 0.5  # a face that overlaps its last box this much means there was no cut
    detect_every_frames: int = 4  # while the face is not lost; when lost, every frame is searched
    bridge_frames: int = 3  # missed detections in a row that do not yet count as a lost face
    look_ahead_frames: int = 12  # frames of a new shot that are measured before its square is fixed
    leave_frames: int = 12  # frames with the face lost, or not fitting the square, before choosing anew
    min_inside_share: float = 0.85  # a face with less of its visible area in the square does not fit it
    min_drive_share: float = 0.5  # with less than this inside, the frame counts as one without a face
    max_shrink: float = 2.0  # a face this many times smaller than when the square was chosen does not fit
    patience_frames: int = 250  # frames without any face at a clip's start before it is refused
    min_found_share: float = 0.5  # with the centre as fallback: below this, detections are not trusted
    reported_squares: int = 100  # squares kept for the run report


@dataclass(frozen=True, kw_only=True)
class PasteBackConfig:
    """An animated square put back into its photograph. Shares are of the square's side; levels of 0 to 255."""

    max_side_px: int = 4096  # of a photograph: H.264 players seldom take more
    grid_px: int = 128  # side of the grid that masks and colours are computed on
    fade_share: float = 0.12  # width in which results fade out towards a border of the square
    still_level: float = 2.0  # below, a difference from the photograph is none
    moved_level: float = 8.0  # from here on the result alone shows
    spread_share: float = 0.025  # how far around a difference the result shows too
    face_share: float = 0.55  # half axes of the face's ellipse, in widths and heights of the detected box
    face_edge: float = 1.4  # where the ellipse has faded out, in its half axes
    colour_level: float = 16.0  # a difference of colours counts 1/e at this one, next to smaller ones
    colour_reach: float = 0.2  # how far it is carried on from where it is seen
    colour_doubt: float = 1e-4  # weight at which half of a difference is believed


@dataclass(frozen=True, kw_only=True)
class HaarConfig:
    """The cascades that find faces when YuNet's file is not there. Shares as in ``FramingConfig``."""

    # cascade file and the neighbouring hits it needs, asked in this order
    cascades: tuple[tuple[str, int], ...] = (
        ("haarcascade_frontalface_alt2", 5),
        ("haarcascade_frontalface_default", 8),
    )
    detect_side_px: int = 320  # finds as much as 512 px did, in about 60 % of the time
    min_face_share: float = 0.08  # smallest square searched for, of the image's longer side
    face_width: float = 0.77  # of the cascade's square: what YuNet reports for the same face (measured)
    face_height: float = 1.1


@dataclass(frozen=True, kw_only=True)
class FaceReaderConfig:
    """Square regions that face landmarks are read in. Shares are of the detected box's larger side."""

    box_scale: float = 1.3  # side of the first region; with the shift, where the landmarks' own lies (measured)
    box_down_shift: float = 0.06  # the first region's centre lies this far below the box's, towards the chin
    landmarks_scale: float = 1.5  # side of the next region, in the landmarks' larger extent (MediaPipe)
    refinements: int = 2  # times that a newly found face is read again, in the region its landmarks give
    min_presence: float = 0.5  # of the landmark network: below, there is no face in the region (MediaPipe)
