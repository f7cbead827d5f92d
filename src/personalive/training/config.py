"""Every number of `personalive train`, once, with its unit, bounds and source; the presets are overrides of these.

"paper" is the PersonaLive paper and its published recipe; "ours" a choice of this project, most of them gains that
were measured on the bundled model (docs/training.md).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
)

from personalive.training.presets import Stage


def _rising(windows: tuple[int, ...]) -> tuple[int, ...]:
    if not windows or list(windows) != sorted(set(windows)):
        raise ValueError("should be rising numbers of windows, from 0 up")
    return windows


def _split(value: Any) -> Any:
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


Share = Annotated[float, Field(ge=0, le=1)]
Freezable = Literal["motion_encoder", "pose_guider", "reference_unet", "denoising_unet", "detail"]
Names = Annotated[tuple[Freezable, ...], BeforeValidator(_split)]
Windows = Annotated[tuple[NonNegativeInt, ...], BeforeValidator(_split), AfterValidator(_rising)]


class _Settings(BaseModel):
    """Base of all settings. Text is read as the field's type; what is unknown or out of bounds is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError("should not be true or false")  # pydantic takes them for 1 and 0
        return value


class OptimiserConfig(_Settings):
    """AdamW for the networks and, where there is one, for the discriminator."""

    kind: Literal["adamw", "adamw8bit"] = "adamw"  # adamw8bit needs the package bitsandbytes (and its GPU)
    lr: PositiveFloat = 1e-5  # of the networks (paper)
    discriminator_lr: PositiveFloat = 2e-5  # (paper)
    weight_decay: NonNegativeFloat = 0.01  # (paper)
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9  # AdamW's usual ones
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    clip_norm: PositiveFloat = 1.0  # of the gradient of all parameters together (paper)
    warmup_steps: NonNegativeInt = 0  # steps of linear growth of both rates (paper: not stated)
    schedule: Literal["constant", "cosine"] = "constant"  # of both rates, after the warm-up (ours)
    final_lr_share: Share = 0.05  # of the rate, that the cosine ends at
    discriminator_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9


class ComputeConfig(_Settings):
    """Number format of the arithmetic, and memory. Parameters and optimiser are float32 in any case."""

    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"  # float16 scales its loss (ours)
    recompute: bool = True  # gradient checkpointing of the U-Nets' levels and, frame by frame, of the VAE's decoder
    shard_optimiser: bool = False  # each process keeps its part of the optimiser's state (ZeRO stage 1)


class AverageConfig(_Settings):
    """Exponential moving average of the trained parameters; when on, it is what is exported (ours)."""

    on: bool = False
    half_life_steps: PositiveInt = 1000


class JournalConfig(_Settings):
    """Intervals of all that is written, in steps (ours). None of these changes a trained number."""

    log_every_steps: PositiveInt = 10  # rows of log.jsonl and TensorBoard scalars
    held_out_every_steps: PositiveInt = 500  # the loss on fixed samples of people that are never trained on
    held_out_samples: NonNegativeInt = 16  # pairs, or clips for the stage stream
    sheet_every_steps: PositiveInt = 500  # sheets/*.png, and one before the first step
    sheet_rows: NonNegativeInt = 4
    checkpoint_every_steps: PositiveInt = 500
    kept_checkpoints: PositiveInt = 2
    tensorboard: bool = True


class DropConfig(_Settings):
    """Chances that a sample goes without a condition (paper)."""

    reference: Share = 0.1
    pose: Share = 0.1
    motion: Share = 0.1
    reference_tokens: Annotated[float, Field(ge=0, lt=1)] = 0.3  # share left out of a reference that is shown


class AugmentConfig(_Settings):
    """Changes of the driving face crop, never of target or reference."""

    stretch: Annotated[float, Field(ge=1)] = 1.3  # one axis is stretched by 1 to this much (paper)
    warp_min: NonNegativeFloat = 0.02  # shift of the warp's knots, in sides of the crop (paper: piecewise affine)
    warp_max: NonNegativeFloat = 0.04
    warp_knots: PositiveInt = 4  # per axis (ours)
    colour: NonNegativeFloat = 0.2  # brightness, contrast and saturation change by up to this share (ours)
    noise: NonNegativeFloat = 0.05  # largest spread of the added noise, for values in [-1, 1] (ours)

    @field_validator("warp_max")
    @classmethod
    def _not_below_warp_min(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("warp_min", 0):
            raise ValueError(f"should not be below warp_min ({info.data['warp_min']})")
        return value


class LossConfig(_Settings):
    """Weights of the losses. The masked terms are the main error again, inside boxes."""

    domain: Literal["pixels", "latents"] = "pixels"  # of stages distill and stream; latents need no decoder (ours)
    face: NonNegativeFloat = 1.0  # (paper: the same error masked; equal weight)
    eyes_and_mouth: NonNegativeFloat = 1.0
    pixel: NonNegativeFloat = 1.0  # L2 of decoded pixels in [-1, 1]
    perceptual: NonNegativeFloat = 2.0  # (paper)
    adversarial: NonNegativeFloat = 0.05  # of pixels (paper); of latents the length of its gradient, of the error's
    lpips: str = ""  # folder with vgg16 and lpips_vgg weights; empty: a fixed-filter distance that needs none
    # Of latents (ours). Squares alone answer every doubt with a blur, so errors beyond robust_from count linearly;
    # 0: squares.
    robust_from: NonNegativeFloat = 0.0
    by_channel: bool = False  # errors count by the root of what their channel does to the decoded image
    change: NonNegativeFloat = 0.0  # of the errors of changes from frame to frame, in stage stream
    detail: NonNegativeFloat = 2.0  # of the detail head's task, for models that have one


class DiscriminatorConfig(_Settings):
    """StyleGAN2-type residual discriminator."""

    channel_base: PositiveInt = 32768  # channels at side s: channel_base / s, at most max_channels (StyleGAN2)
    max_channels: PositiveInt = 512
    deviation_group: PositiveInt = 4  # samples that share a minibatch deviation (paper)
    generator_from_step: NonNegativeInt = 3000  # the networks see the adversarial term from here on (paper)
    train_from_step: NonNegativeInt = 5000  # the discriminator is updated from here on (paper)


class MotionConfig(_Settings):
    """Image-level hybrid motion."""

    noise_offset: NonNegativeFloat = 0.05  # spread of the noise that a whole channel shares (paper)
    inference_form: bool = False  # frames begin as the noised portrait, as in use, instead of as noised truth (ours)
    top_share: Share = 0.25  # of the frames at the highest level, in the inference form (ours)


class ImageConfig(_Settings):
    """Samples of stages motion, distill and detail."""

    frames: PositiveInt = 1  # driving frames per portrait; more share its reference's features (paper: 1)
    frame_stride: PositiveInt = 17  # frames of the recording from one to the next, where there are several (ours)
    second_reference: Share = 0.0  # chance that a frame of the sample is a second reference, as keyframes are (ours)


class DistillConfig(_Settings):
    """Fewer-step appearance distillation."""

    inference_form: bool = False  # begin as the noised portrait and step by DDIM instead of re-noising (ours)


class StreamConfig(_Settings):
    """Sliding training of the temporal modules."""

    frames: PositiveInt = 40  # per clip (paper)
    frame_stride: PositiveInt = 4  # frames of the recording from one to the next (paper)
    gradient_windows: Windows = (0, 3, 6)  # windows that end with an update (paper)
    inference_form: bool = False  # roll out through the engine itself, as in use (ours)
    # of the inference form, as `personalive animate --keyframe-threshold`; inf: none
    keyframe_threshold: Annotated[float, Field(ge=0, allow_inf_nan=True)] = 17.0
    keyframe_first_call: PositiveInt = 4  # inference form: earlier than in use (10), or clips would end before (ours)


class AutoencoderConfig(_Settings):
    """The autoencoder of a model from nothing (ours)."""

    crop_px: PositiveInt = 128
    squared: NonNegativeFloat = 5.0  # of the squared error, beside the absolute one
    edge: NonNegativeFloat = 0.5
    edges_from_step: NonNegativeInt = 10_000  # before, the loss of edges would reward flat images
    kl: NonNegativeFloat = 1e-4
    latent_noise: NonNegativeFloat = 0.03  # of the latents' spread: the decoder must forgive a denoiser's errors


class TokensConfig(_Settings):
    """Motion tokens of a model from nothing (ours)."""

    agreement: NonNegativeFloat = 0.3  # of the tokens of two people who give the same performance
    early: NonNegativeFloat = 1.0  # of the reading before the bottleneck: layers below it see faint changes by it
    spread: PositiveFloat = 0.3  # of every token value over frames, at the end


class DataConfig(_Settings):
    """Sampled data. ``people`` and ``other_driver`` are of synthetic data only."""

    people: PositiveInt = 2000  # synthetic people in training (ours)
    other_driver: Share = 0.5  # share of drivers that are another person giving the same performance (ours)
    workers: NonNegativeInt = 4  # processes that decode, render and crop ahead of the device; 0: none
    # Samples that are drawn and passed through the frozen networks once, at the beginning, and then used again and
    # again; 0: every step draws anew.
    cached: NonNegativeInt = 0


class TrainConfig(_Settings):
    """One stage of one run. The defaults are the published ones; see ``STAGE_VALUES`` and ``PRESETS``."""

    stage: Stage
    preset: str = "full"
    steps: PositiveInt = 30_000  # updates; of stage stream: clips, with one update per gradient window (paper)
    batch: PositiveInt = 4  # samples computed at a time; batch x accumulate is the size that counts
    accumulate: PositiveInt = 8  # batches per update, shared among the processes of a run
    seed: NonNegativeInt = 0
    freeze: Names = ()  # networks that the stage would train and that stay as they are, such as motion_encoder
    optimiser: OptimiserConfig = OptimiserConfig()
    compute: ComputeConfig = ComputeConfig()
    average: AverageConfig = AverageConfig()
    journal: JournalConfig = JournalConfig()
    drop: DropConfig = DropConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    images: ImageConfig = ImageConfig()
    motion: MotionConfig = MotionConfig()
    distill: DistillConfig = DistillConfig()
    stream: StreamConfig = StreamConfig()
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    tokens: TokensConfig = TokensConfig()
    data: DataConfig = DataConfig()
