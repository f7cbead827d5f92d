"""Options that several commands have: each is written once, so that it reads and means the same in all."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.config import TAESD, TINY, WEIGHTS_ENV
from personalive.engine.controls import ControlLimits

if TYPE_CHECKING:
    from personalive.runtime.load import EngineOptions

AUTO = "auto"
WEIGHTS_METAVAR = "FOLDER|tiny|auto"
WEIGHTS_HELP = (
    "A weights folder; 'tiny' for the bundled model, which knows drawn heads only; 'auto' for the "
    f"folder in {WEIGHTS_ENV}, else where `personalive weights download` puts them."
)
FRAMING_HELP = (
    "'auto' finds the face; 'center' takes the middle square; 'none' takes pictures that are square "
    "already as they are."
)
PORTRAIT_HELP = "Any picture that shows one face clearly."
_LIMITS = ControlLimits()


class Dtype(StrEnum):
    """Number formats."""

    AUTO = "auto"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class Vram(StrEnum):
    """Memory presets, by GB of the device."""

    AUTO = "auto"
    GB_8 = "8"
    GB_12 = "12"
    GB_16 = "16"


class Backend(StrEnum):
    """What runs the networks."""

    AUTO = "auto"
    EAGER = "eager"
    COMPILE = "compile"
    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"


class Framing(StrEnum):
    """How the square around the head is chosen."""

    AUTO = "auto"
    CENTER = "center"
    NONE = "none"


def engine_options(
    *,
    device: str,
    dtype: Dtype,
    vram: Vram,
    backend: Backend,
    decoder: str | None,
) -> EngineOptions:
    """What ``load_engine`` takes by name."""
    return {
        "device": device,
        "dtype": dtype.value,
        "vram": vram.value,
        "backend": backend.value,
        "decoder": decoder,
    }


def names_tiny(weights: str) -> bool:
    """Whether ``weights``, or the environment for "auto", names the bundled model."""
    return (os.environ.get(WEIGHTS_ENV) if weights == AUTO else weights) == TINY


# --- the model ------------------------------------------------------------------------------------------------------

WeightsOption = Annotated[str, typer.Option(metavar=WEIGHTS_METAVAR, help=WEIGHTS_HELP)]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto for the best one.")]
DtypeOption = Annotated[Dtype, typer.Option(help="Number format; auto suits the device.")]
VramOption = Annotated[
    Vram,
    typer.Option(
        help="GB of device memory to be content with, for the released weights in half precision: 12 decodes in "
        "slices; 8 also keeps encoders off the device between portraits. auto suits the device on CUDA and saves "
        "nothing elsewhere."
    ),
]
BackendOption = Annotated[
    Backend,
    typer.Option(
        help="What runs the networks: eager is torch as it is; the others prepare programs once per model, which "
        "takes from half a minute to minutes. auto measures once what is fastest here and takes that."
    ),
]
DecoderOption = Annotated[
    str | None,
    typer.Option(
        metavar=f"FOLDER|{TAESD}",
        help="Make the pictures with a small decoder instead of the model's own: quicker, less exact. 'taesd' is "
        "what `personalive weights download --decoder taesd` fetches; or a folder of diffusers' AutoencoderTiny.",
        show_default="the model's own",
    ),
]
SeedOption = Annotated[
    int, typer.Option(help="The same seed gives the same pictures on the same machine; 0 or more.")
]

# --- the clip -------------------------------------------------------------------------------------------------------

StartOption = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="Where in the clip to begin.", show_default="its start")
]
EndOption = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="Where in the clip to end.", show_default="its end")
]
MirrorOption = Annotated[
    bool,
    typer.Option(
        "--mirror/--no-mirror",
        help="Exchange the driver's left and right before the face is read, as in a mirror: a head that turned to "
        "the left turns to the right.",
    ),
]

# --- how the motion reaches the portrait ----------------------------------------------------------------------------

ExpressionOption = Annotated[
    float,
    typer.Option(
        metavar="FACTOR",
        help="How strongly the face plays along: 0 keeps the portrait's own expression, 1 follows the driver, "
        f"{_LIMITS.max_strength:g} goes twice as far. A little above 1 enlivens a driver who hardly moves; from "
        "about 1.5 on wide-open mouths may tear.",
    ),
]
MouthOption = Annotated[
    float,
    typer.Option(
        metavar="FACTOR",
        help=f"How far the mouth opens, 0 to {_LIMITS.max_strength:g}, whatever else the face does; 1 as the "
        "driver's.",
    ),
]
EyesOption = Annotated[
    float,
    typer.Option(
        metavar="FACTOR",
        help=f"How far the lids close, 0 to {_LIMITS.max_strength:g}: 0 never blinks, above 1 helps a driver whose "
        "blinks do not arrive.",
    ),
]
HeadMotionOption = Annotated[
    float,
    typer.Option(
        metavar="FACTOR",
        help="How far the head turns and moves: 0 holds it still while the face goes on, 1 as the driver's, "
        f"{_LIMITS.max_strength:g} twice as far, which blurs large turns.",
    ),
]
SmoothingOption = Annotated[
    float,
    typer.Option(
        metavar="SHARE",
        help="Calms trembling: the share of the last frame's motion kept in the next, 0 to "
        f"{_LIMITS.max_smoothing:g}. Movements come late and quick ones small: half of one is there after "
        "1 frame at 0.5, 3 at 0.8, 13 at 0.95.",
    ),
]
