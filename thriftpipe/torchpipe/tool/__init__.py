"""torchpipe v0's `torchpipe.tool`, which its own `utils` replaced."""

from thriftpipe.torchpipe.absent import Absent
from thriftpipe.torchpipe.tool import onnx_tools, test_tools

vis = Absent("tool.vis")
gpu_train_tools = Absent("tool.gpu_train_tools")
process_tools = Absent("tool.process_tools")
cpp_tools = Absent("tool.cpp_tools")

__all__ = ["cpp_tools", "gpu_train_tools", "onnx_tools", "process_tools", "test_tools", "vis"]
