"""The table of what each stage trains, written a second time for the tests; of the paper's three, the paper's."""

from __future__ import annotations

IDLE = ("attn2.to_q.", "attn2.to_k.", "transformer_blocks.0.norm2.")  # behind a softmax over one key


def stated(names: set[str], stage: str, last: int) -> set[str]:
    """Of ``network.parameter`` names those that ``stage`` trains; ``last`` is the last level on the way up."""
    alone = {"autoencoder": "vae.", "extractor": "motion_extractor.", "detail": "detail."} | {
        "motion_encoder": "motion_encoder."
    }
    if stage in alone:
        return {n for n in names if n.startswith(alone[stage])}
    temporal = {n for n in names if n.startswith("denoising_unet.") and ".temporal_modules." in n}
    if stage == "stream":
        return temporal
    parts = ("denoising_unet.", "motion_encoder.", "pose_guider.", "reference_unet.")
    image = {n for n in names if n.startswith(parts)} - temporal
    image = {n for n in image if not n.startswith(f"reference_unet.up_blocks.{last}.")}
    image |= {n for n in names if n.startswith("detail.") and not n.startswith("detail.blend.")}
    return {n for n in image if not any(idle in n for idle in IDLE)}
