"""Convert the networks of MediaPipe's face landmarker (Apache-2.0) to safetensors, without loss.

python scripts/convert_face_landmarks.py face_landmarker.task OUT_FOLDER

Writes ``face_landmarks.safetensors`` and ``face_blendshapes.safetensors`` in float16, the published dtype.
The face detector in it is left out: the project has its own. Needs the packages ``tflite`` and ``flatbuffers``.
"""

from __future__ import annotations

import argparse
import struct
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from personalive.models.face_reader import FaceBlendshapes, FaceLandmarks

try:
    import tflite
except ImportError:
    sys.exit("this script reads tflite files: pip install tflite flatbuffers")

WEIGHT_OPERATORS = ("CONV_2D", "DEPTHWISE_CONV_2D", "PRELU", "MUL", "CONCATENATION", "CUSTOM")
# what damaged archives, flatbuffers and other networks raise
DAMAGE = (zipfile.BadZipFile, struct.error, LookupError, ValueError, RuntimeError, TypeError, AttributeError)
OPERATOR_NAMES = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}


@dataclass(frozen=True)
class Layer:
    """One operator that has weights: its name, its float16 constants and the index of the tensor it writes."""

    operator: str
    constants: list[np.ndarray]
    output: int


class Graph:
    """A tflite file whose constants are float16, in the order in which its operators run."""

    def __init__(self, content: bytes) -> None:
        """Parse a tflite flatbuffer."""
        self._model = tflite.Model.GetRootAsModel(content, 0)
        self._graph = self._model.Subgraphs(0)
        self.outputs = [int(index) for index in self._graph.OutputsAsNumpy()]

    def layers(self) -> Iterator[Layer]:
        """Operators with weights. Scalars are no weights."""
        stored: dict[int, int] = {}  # tensor of a DEQUANTIZE → the float16 tensor it reads
        for index in range(self._graph.OperatorsLength()):
            operator = self._graph.Operators(index)
            code = self._model.OperatorCodes(operator.OpcodeIndex())
            name = OPERATOR_NAMES[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            if name == "DEQUANTIZE":
                stored[operator.Outputs(0)] = operator.Inputs(0)
            elif name in WEIGHT_OPERATORS:
                sources = [stored[int(i)] for i in operator.InputsAsNumpy() if int(i) in stored]
                constants = [array for array in map(self._constant, sources) if array.ndim]
                if constants:
                    yield Layer(name, constants, operator.Outputs(0))

    def _constant(self, index: int) -> np.ndarray:
        tensor = self._graph.Tensors(index)
        if tensor.Type() != tflite.TensorType.FLOAT16:
            raise ValueError("constants are not float16")
        data = self._model.Buffers(tensor.Buffer()).DataAsNumpy()
        shape = tensor.ShapeAsNumpy() if tensor.ShapeLength() else ()
        return np.frombuffer(data.tobytes(), np.float16).reshape(shape)


def to_torch(layer: Layer, module: nn.Module) -> dict[str, Tensor]:
    """Parameters of ``module`` from the operator that does the same.

    Raises:
        ValueError: the operator is another.
    """
    weight, *rest = (torch.from_numpy(array.copy()) for array in layer.constants)
    match layer.operator, module:
        case "CONV_2D", nn.Conv2d():
            return {"weight": weight.permute(0, 3, 1, 2).contiguous(), "bias": rest[0]}
        case "CONV_2D", nn.Linear():
            return {"weight": weight.flatten(1), "bias": rest[0]}
        case "DEPTHWISE_CONV_2D", nn.Conv2d() if not rest[0].any():
            return {"weight": weight.permute(3, 0, 1, 2).contiguous()}
        case ("PRELU", nn.PReLU()) | ("MUL", nn.LayerNorm()):
            return {"weight": weight.flatten()}
    raise ValueError(f"{layer.operator} where {type(module).__name__} was expected")


def layer_names(network: nn.Module) -> list[str]:
    """Layers with parameters, in the order of definition, which is the order in which they run."""
    return [name for name, module in network.named_modules() if name and list(module.parameters(recurse=False))]


def landmark_layers(graph: Graph, network: FaceLandmarks) -> list[tuple[str, Layer]]:
    """Pair layers of the landmark network with operators.

    Raises:
        ValueError: the file holds another network.
    """
    *trunk, _, presence, landmarks = graph.layers()  # the third head is one that MediaPipe does not read either
    if [landmarks.output, presence.output] != graph.outputs[:2]:
        raise ValueError("the outputs are others")
    return list(zip(layer_names(network), [*trunk, landmarks, presence], strict=True))


def blendshape_layers(graph: Graph, network: FaceBlendshapes) -> list[tuple[str, Layer]]:
    """Pair layers of the blendshape network with operators.

    Raises:
        ValueError: the file holds another network.
    """
    names = layer_names(network)
    names.insert(names.index("embed") + 1, "token")
    return list(zip(names, graph.layers(), strict=True))


def convert(network: nn.Module, pairs: Sequence[tuple[str, Layer]]) -> Mapping[str, Tensor]:
    """State dict in float16, checked against the network.

    Raises:
        ValueError: the operators are not those of the network.
        RuntimeError: shapes differ.
    """
    state: dict[str, Tensor] = {}
    for name, layer in pairs:
        if name == "token":
            state[name] = torch.from_numpy(layer.constants[0].copy()).flatten()
        else:
            tensors = to_torch(layer, network.get_submodule(name))
            state |= {f"{name}.{key}": value for key, value in tensors.items()}
    network.load_state_dict(state)
    return state


def main() -> None:
    """Convert both networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task_file", type=Path, help="face_landmarker.task of MediaPipe")
    parser.add_argument("out_folder", type=Path)
    args = parser.parse_args()
    parts: dict[str, tuple[str, nn.Module, Any]] = {
        "face_landmarks": ("face_landmarks_detector.tflite", FaceLandmarks(), landmark_layers),
        "face_blendshapes": ("face_blendshapes.tflite", FaceBlendshapes(), blendshape_layers),
    }
    try:
        with zipfile.ZipFile(args.task_file) as task:
            graphs = {name: Graph(task.read(file)) for name, (file, _, _) in parts.items()}
        states = {name: convert(net, pair(graphs[name], net)) for name, (_, net, pair) in parts.items()}
    except OSError as error:
        sys.exit(f"{args.task_file}: cannot be read ({error.strerror}): give the path of face_landmarker.task")
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:100]
        sys.exit(f"{args.task_file}: not the face landmarker this script knows ({reason}): download it again")
    try:
        args.out_folder.mkdir(parents=True, exist_ok=True)
        for name, state in states.items():
            path = args.out_folder / f"{name}.safetensors"
            save_file(dict(state), path, metadata={"licence": "Apache-2.0", "source": "MediaPipe face landmarker"})
            print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    except (OSError, SafetensorError) as error:
        sys.exit(f"{args.out_folder}: cannot be written ({error}): give another folder")


if __name__ == "__main__":
    main()
