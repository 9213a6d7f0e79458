"""torchpipe's backends that have nothing to do here: what comes in goes out."""

from __future__ import annotations

from pipeline.backends.containers import Torch
from pipeline.backends.identity import Identity
from pipeline.backends.registry import register
from pipeline.language.torchpipe_names import BACKEND, Verdict, torchpipe_names

for _row in torchpipe_names(BACKEND).values():
    if _row.verdict is Verdict.IGNORED:
        register(_row.name)(Torch if _row.brackets else Identity)
