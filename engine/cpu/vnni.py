"""Whether int8 products need weights of 7 bits on this CPU.

x86 CPUs without VNNI multiply uint8 with int8 and add two products in 16 bits, which saturate:
2 x 255 x 127 is more than 32,767. Weights of 7 bits stay below. Both oneDNN (in OpenVINO) and MLAS
(in onnxruntime) compute so there; VNNI and AMX add in 32 bits. Other CPUs than x86 get 8 bits, as
onnxruntime's guide says.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Set
from pathlib import Path

from engine.cpu.cores import CPUINFO

_VNNI = frozenset({"avx512_vnni", "avx_vnni"})
_WITHOUT_VNNI = {"sse41", "avx", "avx2", "avx512_core"}
_WITH_AVX_VNNI = {"avx2_vnni", "avx2_vnni_2"}

LARGEST_OF_8_BITS = 127
LARGEST_OF_7_BITS = 64
"""2 x 255 x 64 is 32,640."""


def largest_weight(flags: Set[str] | None = None, max_isa: str = "", machine: str = "") -> int:
    """The largest number that a weight may be: 64 where sums of two products saturate, else 127.

    Args:
        flags: what the CPU can, as /proc/cpuinfo names it, or None for this CPU. A CPU of which
            nothing is known counts as one without VNNI.
        max_isa: the most that the engine may use of it, as oneDNN names it; see `onednn_max_isa`.
        machine: as `platform.machine()` names it, or "" for this one.
    """
    if (machine or platform.machine()).lower() not in ("x86_64", "amd64"):
        return LARGEST_OF_8_BITS
    usable = _VNNI & (cpu_flags() if flags is None else flags)
    level = max_isa.lower()
    if level in _WITHOUT_VNNI:
        usable = frozenset()
    elif level in _WITH_AVX_VNNI:
        usable &= {"avx_vnni"}
    elif level.startswith("avx512_core"):
        usable &= {"avx512_vnni"}
    return LARGEST_OF_8_BITS if usable else LARGEST_OF_7_BITS


def onednn_max_isa() -> str:
    """The environment's limit to the instructions that oneDNN uses, or ""."""
    return os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""


def cpu_flags(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """The instruction sets of an x86 CPU; none where the kernel does not tell."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    flags = (line.partition(":")[2].split() for line in lines if line.startswith("flags"))
    return frozenset(next(flags, []))
