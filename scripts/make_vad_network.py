"""Writes stt_engine/assets/silero_vad_v6.onnx: Silero's weights as faster-whisper ships them, in a quicker graph.

    pip install onnx faster-whisper==1.2.1
    python scripts/make_vad_network.py

Run by hand when Silero's network changes; the result is committed. The weights are untouched and the probabilities
agree to 1e-6 (tests/engine/test_vad.py). What changes is the shape of the arithmetic: the original runs convolutions
over four positions at a time, which is far too little for a processor. Here they are matrix products over all frames
of a run. It also gives the LSTM a batch dimension, so that the channels of a call are one run.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FRAME_SAMPLES = 64 + 512
STFT_SAMPLES, HOP_SAMPLES, N_BINS = 256, 128, 129
TARGET = Path(__file__).parents[1] / "stt_engine" / "assets" / "silero_vad_v6.onnx"


class GraphWriter:
    """Nodes and constants in the order of the arithmetic; every method returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, values: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def integers(self, name: str, *values: int) -> str:
        return self.constant(name, np.array(values, dtype=np.int64))

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def slice(self, source: str, start: int, end: int, axis: int, output: str) -> str:
        bounds = [
            self.integers(f"{output}_{what}", at) for what, at in (("start", start), ("end", end), ("axis", axis))
        ]
        return self.node("Slice", [source, *bounds], output)

    def dense_relu(self, source: str, weight: np.ndarray, bias: np.ndarray, output: str) -> str:
        product = self.node("MatMul", [source, self.constant(f"{output}_weight", weight)], f"{output}_product")
        shifted = self.node("Add", [product, self.constant(f"{output}_bias", bias)], f"{output}_sum")
        return self.node("Relu", [shifted], output)


def relaid(original: onnx.ModelProto) -> onnx.ModelProto:
    """input (frames, streams, 576), h and c (1, streams, 128) -> speech_probs (frames, streams), hn, cn."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in original.graph.initializer}
    w = GraphWriter()

    # magnitudes of a short-time Fourier transform at four positions a frame: (rows, 4, 129)
    basis = weights["encoder.feature_extractor.forward_basis_buffer"][:, 0, :]
    rows = w.node("Reshape", ["input", w.integers("row_shape", -1, FRAME_SAMPLES)], "rows")
    rows = w.node("Pad", [rows, w.integers("row_pads", 0, 0, 0, 64)], "rows_padded", mode="reflect")
    windows = []
    for k in range(4):
        window = w.slice(rows, HOP_SAMPLES * k, HOP_SAMPLES * k + STFT_SAMPLES, 1, f"window_{k}")
        windows.append(w.node("Unsqueeze", [window, w.integers(f"window_axis_{k}", 1)], f"window_row_{k}"))
    stacked = w.node("Concat", windows, "windows", axis=1)
    real = w.node("MatMul", [stacked, w.constant("cosines", basis[:N_BINS].T)], "real")
    imaginary = w.node("MatMul", [stacked, w.constant("sines", basis[N_BINS:].T)], "imaginary")
    squares = [w.node("Mul", [part, part], f"{part}_squared") for part in (real, imaginary)]
    x = w.node("Sqrt", [w.node("Add", squares, "power")], "magnitude")

    # four convolutions of width 3 over those positions, as products with their neighbourhoods laid side by side
    kernels = [weights[f"encoder.conv_layers.{i}.weight"].transpose(2, 1, 0) for i in range(4)]  # (tap, in, out)
    biases = [weights[f"encoder.conv_layers.{i}.bias"] for i in range(4)]
    padded = w.node("Pad", [x, w.integers("pads_0", 0, 1, 0, 0, 1, 0)], "padded_0")
    shifts = [w.slice(padded, k, k + 4, 1, f"shift_{k}") for k in range(3)]
    x = w.node("Concat", shifts, "neighbours_0", axis=2)
    x = w.dense_relu(x, kernels[0].reshape(-1, 128), biases[0], "layer_0")  # (rows, 4, 128)
    padded = w.node("Pad", [x, w.integers("pads_1", 0, 1, 0, 0, 0, 0)], "padded_1")
    halves = [
        w.node(
            "Reshape", [w.slice(padded, k, k + 3, 1, f"half_{k}"), w.integers(f"half_shape_{k}", -1, 1, 384)], f"h_{k}"
        )
        for k in (0, 2)  # stride 2
    ]
    x = w.node("Concat", halves, "neighbours_1", axis=1)
    x = w.dense_relu(x, kernels[1].reshape(-1, 64), biases[1], "layer_1")  # (rows, 2, 64)
    x = w.node("Reshape", [x, w.integers("shape_2", -1, 128)], "neighbours_2")
    x = w.dense_relu(x, kernels[2][1:].reshape(-1, 64), biases[2], "layer_2")  # its first tap only ever meets padding
    x = w.dense_relu(x, kernels[3][1], biases[3], "layer_3")  # one position is left: only the middle tap meets it

    frames_and_streams = w.node("Shape", ["input"], "frames_and_streams", start=0, end=2)
    shape = w.node("Concat", [frames_and_streams, w.integers("width", 128)], "sequence_shape", axis=0)
    x = w.node("Reshape", [x, shape], "sequence")
    lstm = [w.constant(f"lstm_{i}", weights[f"onnx::LSTM_{209 + i}"]) for i in range(3)]
    w.nodes.append(
        helper.make_node("LSTM", [x, *lstm, "", "h", "c"], ["lstm", "hn", "cn"], name="lstm", hidden_size=128)
    )
    x = w.node("Relu", [w.node("Squeeze", ["lstm", w.integers("direction", 1)], "states")], "states_relu")
    x = w.node("MatMul", [x, w.constant("out_weight", weights["decoder.conv1d.weight"][0])], "out_product")
    x = w.node("Add", [x, w.constant("out_bias", weights["decoder.conv1d.bias"])], "logits")
    w.node("Squeeze", [w.node("Sigmoid", [x], "probabilities"), w.integers("last", 2)], "speech_probs")

    def value(name: str, *dimensions: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dimensions))

    graph = helper.make_graph(
        w.nodes,
        "silero_vad_v6",
        [
            value("input", "frames", "streams", FRAME_SAMPLES),
            value("h", 1, "streams", 128),
            value("c", 1, "streams", 128),
        ],
        [value("speech_probs", "frames", "streams"), value("hn", 1, "streams", 128), value("cn", 1, "streams", 128)],
        w.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], producer_name="nightscribe")
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    spec = find_spec("faster_whisper")
    if spec is None or spec.origin is None:
        raise SystemExit("faster-whisper is not installed: pip install faster-whisper==1.2.1")
    original = onnx.load(str(Path(spec.origin).parent / "assets" / "silero_vad_v6.onnx"))
    onnx.save(relaid(original), str(TARGET))
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
