"""torchpipe's `torchpipe.utils`: load tests, models, and the picture of a graph."""

from thriftpipe.torchpipe.absent import Absent
from thriftpipe.torchpipe.utils import cpp_extension, models, test
from thriftpipe.torchpipe.utils.visual import Visual

load = Absent("utils.load")
model_helper = Absent("utils.model_helper")
benchmark = Absent("utils.benchmark")
encrypt = Absent("utils.encrypt")

__all__ = [
    "Visual",
    "benchmark",
    "cpp_extension",
    "encrypt",
    "load",
    "model_helper",
    "models",
    "test",
]
