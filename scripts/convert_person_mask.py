"""Convert MediaPipe's selfie segmentation (Apache-2.0) to safetensors, without loss.

python scripts/convert_person_mask.py selfie_segmentation.tflite OUT_FOLDER

The file lies in MediaPipe's wheel 0.10.9, in ``mediapipe/modules/selfie_segmentation``. Writes
``person_mask.safetensors`` in float16, the published dtype. Needs the packages ``tflite`` and ``flatbuffers``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from convert_face_landmarks import DAMAGE, Graph, Layer, layer_names, to_torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from personalive.models.person_mask import PersonMask

TURNED = (
    "DEPTHWISE_CONV_2D",
    "CUSTOM",
)  # stored with the channels last; the only custom one is a transposed convolution


def main() -> None:
    """Convert the network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tflite_file", type=Path, help="selfie_segmentation.tflite of MediaPipe")
    parser.add_argument("out_folder", type=Path)
    args = parser.parse_args()
    network = PersonMask()
    try:
        layers = list(Graph(args.tflite_file.read_bytes()).layers())
        state = convert(network, layers)
    except OSError as error:
        sys.exit(
            f"{args.tflite_file}: cannot be read ({error.strerror}): give the path of selfie_segmentation.tflite"
        )
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:100]
        sys.exit(f"{args.tflite_file}: not the network this script knows ({reason}): download it again")
    try:
        args.out_folder.mkdir(parents=True, exist_ok=True)
        save_file(state, args.out_folder / "person_mask.safetensors")
    except (OSError, SafetensorError) as error:
        sys.exit(f"{args.out_folder}: cannot be written ({error}): choose another folder")


def convert(network: PersonMask, layers: list[Layer]) -> dict[str, Tensor]:
    """State dict in float16, checked against the network.

    Raises:
        ValueError: the operators are not those of the network.
        RuntimeError: shapes differ.
    """
    state: dict[str, Tensor] = {}
    for name, layer in zip(layer_names(network), layers, strict=True):
        weight, bias = (torch.from_numpy(array.copy()) for array in layer.constants)
        if layer.operator in TURNED:
            tensors = {"weight": weight.permute(3, 0, 1, 2).contiguous(), "bias": bias}
        else:
            tensors = to_torch(layer, network.get_submodule(name))
        state |= {f"{name}.{key}": value for key, value in tensors.items()}
    network.load_state_dict(state)
    return state


if __name__ == "__main__":
    main()
