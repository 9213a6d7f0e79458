"""thriftpy2's binary protocol, for whole messages in memory."""

from __future__ import annotations

from typing import Any

from thriftpy2.protocol import TCyBinaryProtocol

# The library's annotations cover its pure Python twin only.
BinaryProtocol: Any = TCyBinaryProtocol
