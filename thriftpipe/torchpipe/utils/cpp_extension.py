"""torchpipe's `torchpipe.utils.cpp_extension`: what it builds cannot be loaded here."""

from __future__ import annotations

from thriftpipe.torchpipe.absent import Absent

load = Absent("utils.cpp_extension.load")
load_filter = Absent("utils.cpp_extension.load_filter")
load_backend = Absent("utils.cpp_extension.load_backend")
