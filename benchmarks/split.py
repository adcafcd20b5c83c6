"""Cutting real models: exactness at every cut, and what crossing bytes buy without training. Prints JSON.

    python benchmarks/split.py exact [MODEL.tflite ...]       head after tail against the uncut model, bit for bit, at every cut

Models default to those under the data folder (`ISTHMUS_DATA`, or ../shared/data).
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from isthmus.models import flatbuffer
from isthmus.models.cuts import cut_files, cuts
from isthmus.models.flatbuffer import Graph
from isthmus.models.pictures import data_root, samples

Array = NDArray[Any]


def exact(path: Path, pictures: list[Array]) -> dict[str, object]:
    graph = flatbuffer.read(path)
    found = cuts(graph)
    expected = [uncut(graph, x) for x in pictures]
    cut_points = [cut for cut in found if not cut.obstacle]
    wrong = [cut.after for cut in cut_points if not equal(graph, cut_files(graph, cut), pictures, expected)]
    return {
        "model": path.name,
        "operators": len(graph.operators),
        "mflop": round(graph.flops / 1e6, 1),
        "cuts": len(cut_points),
        "cuts_across_several_tensors": sum(len(cut.crossing) > 1 for cut in cut_points),
        "no_cut": {cut.after: cut.obstacle for cut in found if cut.obstacle},
        "exact": len(cut_points) - len(wrong),
        "different_after": wrong,
    }


def uncut(graph: Graph, x: Array) -> list[Array]:
    interpreter = Interpreter(str(graph.path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]


def equal(graph: Graph, files: tuple[bytes, bytes], pictures: list[Array], expected: list[list[Array]]) -> bool:
    head, tail = (Interpreter(model_content=file, num_threads=1) for file in files)
    first, rest = head.get_signature_runner("head"), tail.get_signature_runner("tail")
    for x, want in zip(pictures, expected, strict=True):
        out: Mapping[str, Array] = rest(**first(image=x))
        if not all(np.array_equal(out[f"output{i}"], w) for i, w in enumerate(want)):
            return False
    return True


def stored(graph: Graph, picture: Array) -> Array:
    """A picture as the model's input stores it; floats from 0 to 1."""
    import cv2

    tensor = graph.tensors[graph.inputs[0]]
    x = cv2.resize(picture, (tensor.shape[2], tensor.shape[1]), interpolation=cv2.INTER_AREA)[None]
    if tensor.dtype == "float32":
        return (x / 255).astype(np.float32)
    return (x.astype(np.int16) - 128).astype(np.int8) if tensor.dtype == "int8" else x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["exact"])
    parser.add_argument("models", nargs="*", type=Path)
    options = parser.parse_args()
    models = options.models or sorted((data_root() / "models").glob("*.tflite"))
    pictures = samples(data_root() / "models" / "samples", 3)
    rows = []
    for path in models:
        graph = flatbuffer.read(path)
        rows.append(exact(path, [stored(graph, picture) for picture in pictures]))
    versions = {"litert": metadata.version("ai-edge-litert"), "machine": platform.machine()}
    print(json.dumps({**versions, "pictures": len(pictures), "models": rows}, indent=1))


if __name__ == "__main__":
    main()
