"""Engines: one ONNX model in, batches of tensors through it."""

import os
import sys

# onnxruntime (since 1.29) and openvino report their use over the network unless they are told not
# to before they are imported, and every module that imports them lies in this package. A server
# that handles other people's images reports to no one.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# openvino does without its reporting package where that is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
