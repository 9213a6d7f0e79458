"""A model that does next to nothing: a row for what serving costs beside decoding and resizing."""

from __future__ import annotations

from pathlib import Path

NULL_MODEL = "null"
# How far the mean colours of photographs are apart, so that no label hangs on rounding.
_GAIN = 20.0


def write_null_model(folder: Path, side: int = 224) -> Path:
    """Write the model: which of red, green and blue an image has most of.

    Its answer depends on every pixel, so that a server which has not decoded an image shows.

    Args:
        folder: where to.
        side: height and width of its images, in pixels.

    Returns:
        The file.
    """
    # Not at the top: a refused command line does not wait for it.
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["means"]),
        helper.make_node("Flatten", ["means"], ["colours"]),
        helper.make_node("Mul", ["colours", "gain"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        NULL_MODEL,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, side, side])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor("gain", TensorProto.FLOAT, [1], [_GAIN])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"thriftpipe.mean": "0", "thriftpipe.std": "255"})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NULL_MODEL}.onnx"
    onnx.save(model, path)
    return path
