"""Options that several commands have, as groups: a dataclass whose fields are options, declared once for all.

A command decorated with ``with_groups`` takes a group as one parameter and gets one option per field, in that place.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, cast, get_type_hints

import typer

from personalive.config import OWN_DECODER, SIGNER_ENV, TAESD, TINY, WEIGHTS_ENV
from personalive.engine.controls import ControlLimits, Controls
from personalive.offline.config import BeginningConfig

if TYPE_CHECKING:
    from personalive.cluster.tasks import ClusterOptions
    from personalive.runtime.load import EngineOptions

AUTO = "auto"
WEIGHTS_METAVAR = "FOLDER|photo|tiny|auto"
WEIGHTS_HELP = (
    "Model to run: a weights folder; 'photo' for the bundled model, which moves a photograph by the geometry of its "
    "face; 'tiny' for the bundled diffusion model, which knows synthetic heads only; 'auto' for the folder in "
    f"{WEIGHTS_ENV}, else where `personalive weights download` puts them, else photo."
)
FRAMING_HELP = (
    "How the square around the head is cut out: 'auto' finds the face; 'center' takes the middle; 'none' takes "
    "frames that are square already as they are."
)
PORTRAIT_HELP = "Image file that shows one face clearly."
_LIMITS, _PLAIN = ControlLimits(), Controls()


class Dtype(StrEnum):
    """Dtypes of the networks' weights and arithmetic."""

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
    """Runtimes of the networks."""

    AUTO = "auto"
    EAGER = "eager"
    COMPILE = "compile"
    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"


class Framing(StrEnum):
    """Ways to choose the square around the head."""

    AUTO = "auto"
    CENTER = "center"
    NONE = "none"


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Return ``command`` with every parameter that is a group replaced by the group's options.

    Defaults are those of the parameter's default where it has one, else of the group's fields.
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type[Any]] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if not is_dataclass(group := parameter.annotation):
            parameters.append(parameter)
            continue
        groups[parameter.name] = group = cast(type[Any], group)
        given = group() if parameter.default is parameter.empty else parameter.default
        kinds = get_type_hints(group, include_extras=True)
        parameters += [
            inspect.Parameter(
                field.name, parameter.KEYWORD_ONLY, default=getattr(given, field.name), annotation=kinds[field.name]
            )
            for field in fields(group)
        ]

    @functools.wraps(command)
    def flat(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    flat.__signature__ = inspect.Signature(keyword)  # pyright: ignore[reportAttributeAccessIssue]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in keyword}
    return flat


# --- the model ------------------------------------------------------------------------------------------------------

DeviceOption = Annotated[str, typer.Option(help="Device to run on: cpu, cuda, cuda:1, mps, or auto for the best.")]


@dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """Model and device."""

    weights: Annotated[str, typer.Option(metavar=WEIGHTS_METAVAR, help=WEIGHTS_HELP)] = AUTO
    device: DeviceOption = AUTO

    @property
    def is_tiny(self) -> bool:
        """True if the bundled model is meant, by name or by the environment."""
        return (os.environ.get(WEIGHTS_ENV) if self.weights == AUTO else self.weights) == TINY

    def engine_options(self) -> EngineOptions:
        """Return the keyword arguments of ``load_engine`` but the weights."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "weights"}
        return cast("EngineOptions", {n: v.value if isinstance(v, StrEnum) else v for n, v in given.items()})


@dataclass(frozen=True, kw_only=True)
class MotionModelOptions(WeightsOptions):
    """All of a model but what decodes its images, for commands that make none."""

    dtype: Annotated[
        Dtype,
        typer.Option(
            help="Dtype of the networks. auto: float16 on a GPU; on a CPU bfloat16 where it has AMX, else float32."
        ),
    ] = Dtype.AUTO
    vram: Annotated[
        Vram,
        typer.Option(
            help="GPU memory budget in GB, for the released weights in half precision: 12 decodes two frames at a "
            "time; 8 also keeps the image encoders in main memory between portraits. auto goes by the GPU's memory."
        ),
    ] = Vram.AUTO
    backend: Annotated[
        Backend,
        typer.Option(
            help="Runtime of the networks. eager: PyTorch as it is. compile: torch.compile, which takes minutes "
            "when a model is first run; made for all denoising steps, with fewer it runs as eager. openvino: "
            "for a CPU. onnxruntime: on a CPU or CUDA. tensorrt: on CUDA, by onnxruntime; this project has never run "
            "it. auto: on a CPU the fastest here, by a measurement made once per model; elsewhere eager."
        ),
    ] = Backend.AUTO


@dataclass(frozen=True, kw_only=True)
class ModelOptions(MotionModelOptions):
    """Model, device and everything that decides how it is run."""

    decoder: Annotated[
        str | None,
        typer.Option(
            metavar=f"FOLDER|{TAESD}|{OWN_DECODER}",
            help="Decode frames with a small decoder instead of the model's own: faster, less exact. 'taesd' is "
            "what `personalive weights download --decoder taesd` fetches; a folder is one of diffusers' "
            f"AutoencoderTiny; '{OWN_DECODER}' is the model's own.",
            show_default="for serve and camera taesd where it was fetched and fits, else the model's own",
        ),
    ] = None


SeedOption = Annotated[int, typer.Option(help="Random seed, 0 or more: the same gives the same on one machine.")]


def _steps_option(default: str) -> Any:
    return typer.Option(
        min=1,
        metavar="1..4",
        help="Denoising steps of each frame. Fewer are faster and shorten the delay, and leave a little more to "
        "chance. 'photo' has no such steps and refuses the option.",
        show_default=default,
    )


StepsOption = Annotated[int | None, _steps_option("the model's own, 4")]
LiveStepsOption = Annotated[
    int | None, _steps_option("on a CPU the fewest without a visible loss, by measurement; else the model's own, 4")
]

# --- many devices ---------------------------------------------------------------------------------------------------


ClusterOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS|auto|local",
        help="Work on a Ray cluster: HOST:PORT of its head, 'auto' for the one this machine belongs to, 'local' "
        "for one of this machine alone. Paths are those of storage that all its machines share. Needs "
        'pip install "personalive[cluster]".',
        show_default="in this process",
    ),
]


@dataclass(frozen=True, kw_only=True)
class OnCluster:
    """Cluster to work on."""

    cluster: ClusterOption = None
    actors: Annotated[
        int | None,
        typer.Option(
            metavar="COUNT",
            help="With --cluster: processes, each with the model.",
            show_default="one per GPU, without GPUs one per four cores",
        ),
    ] = None

    def to_options(self, device: str) -> ClusterOptions | None:
        """Return the library's options, or None for this process."""
        if self.cluster is None:
            if self.actors is not None:
                raise typer.BadParameter("--actors means nothing without --cluster: leave it out")
            return None
        from personalive.cluster.tasks import ClusterOptions  # noqa: PLC0415

        return ClusterOptions(address=self.cluster, actors=self.actors, device=device)


# --- provenance -----------------------------------------------------------------------------------------------------

CredentialsOption = Annotated[
    bool,
    typer.Option(
        "--credentials/--no-credentials",
        help="Sign what is written, so that readers of C2PA content credentials see that a model made it and whether "
        f"it was changed since; with the certificate.pem and key.pem in the folder that {SIGNER_ENV} names, else "
        "with a certificate made on this machine.",
    ),
]
VisibleMarkOption = Annotated[
    bool, typer.Option("--visible-mark/--no-visible-mark", help="Put a small label on every frame: AI-generated.")
]

# --- the clip -------------------------------------------------------------------------------------------------------

MirrorOption = Annotated[
    bool,
    typer.Option(
        "--mirror/--no-mirror",
        help="Mirror the driving frames first: a head that turns to the left turns to the right.",
    ),
]


def _start(text: str) -> float | str:
    try:
        return text if text == AUTO else float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: give seconds, or {AUTO}") from None


@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """Part of the driving clip, and how it is framed."""

    start: Annotated[
        Any,
        typer.Option(
            parser=_start,
            metavar="SECONDS|auto",
            help="Where in the clip to begin; 'auto' is where, in its first "
            f"{BeginningConfig.start_s:g} s, the face is most neutral.",
            show_default="its start",
        ),
    ] = None
    end: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Where in the clip to end.", show_default="its end")
    ] = None
    framing: Annotated[Framing | None, typer.Option(help=FRAMING_HELP, show_default=AUTO)] = None
    mirror: MirrorOption = False

    def to_dict(self, default: Framing = Framing.AUTO) -> dict[str, Any]:
        """Return the fields as ``AnimateOptions`` and ``RecordOptions`` name them."""
        framing = (self.framing or default).value
        return {"start_s": self.start, "end_s": self.end, "framing": framing, "mirror": self.mirror}


# --- how the motion reaches the portrait ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ControlOptions:
    """Motion controls, by the names of ``Controls``."""

    expression: Annotated[
        float,
        typer.Option(
            metavar="FACTOR",
            help="Strength of the expression: 0 keeps the portrait's own, 1 follows the driver, "
            f"{_LIMITS.max_strength:g} goes twice as far. A little above 1 enlivens a driver who hardly moves; from "
            "about 1.5 on wide-open mouths may tear.",
        ),
    ] = _PLAIN.expression
    mouth: Annotated[
        float,
        typer.Option(
            metavar="FACTOR",
            help=f"How far the mouth opens, 0 to {_LIMITS.max_strength:g}, whatever else the face does; 1 is as far "
            "as the driver's.",
        ),
    ] = _PLAIN.mouth
    eyes: Annotated[
        float,
        typer.Option(
            metavar="FACTOR",
            help=f"How far the eyelids close, 0 to {_LIMITS.max_strength:g}: 0 never blinks, above 1 helps where the "
            "driver's blinks do not arrive.",
        ),
    ] = _PLAIN.eyes
    head_motion: Annotated[
        float,
        typer.Option(
            metavar="FACTOR",
            help="How far the head turns and moves: 0 holds it still while the face goes on, 1 follows the driver, "
            f"{_LIMITS.max_strength:g} goes twice as far, which blurs large turns.",
        ),
    ] = _PLAIN.head_motion
    smoothing: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Share of the last frame's motion that is kept in the next, 0 to "
            f"{_LIMITS.max_smoothing:g}, against trembling. It delays movements and weakens quick ones: half of one "
            "has arrived after 1 frame at 0.5, 3 at 0.8, 13 at 0.95.",
        ),
    ] = _PLAIN.smoothing
