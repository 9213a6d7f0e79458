from __future__ import annotations

from pathlib import Path

import pytest

from engine.cpu.vnni import cpu_flags, largest_weight, onednn_max_isa

CASCADE_LAKE = {"avx2", "avx512f", "avx512_vnni"}
ALDER_LAKE = {"avx2", "avx_vnni"}
ZEN_5 = {"avx2", "avx512f", "avx512_vnni", "avx_vnni"}
SAPPHIRE_RAPIDS = {*ZEN_5, "amx_int8"}
SKYLAKE_X = {"avx2", "avx512f"}


@pytest.mark.parametrize(
    ("flags", "max_isa", "largest"),
    [
        ({"avx2"}, "", 64),
        (SKYLAKE_X, "", 64),
        (SKYLAKE_X, "AVX512_CORE_AMX", 64),
        (set(), "", 64),
        (CASCADE_LAKE, "", 127),
        (CASCADE_LAKE, "AVX2_VNNI", 64),
        (CASCADE_LAKE, "AVX512_CORE", 64),
        (CASCADE_LAKE, "AVX512_CORE_VNNI", 127),
        (ALDER_LAKE, "", 127),
        (ALDER_LAKE, "AVX512_CORE_VNNI", 64),
        (ALDER_LAKE, "avx2_vnni", 127),
        (ZEN_5, "AVX2", 64),
        (ZEN_5, "SSE41", 64),
        (ZEN_5, "DEFAULT", 127),
        (SAPPHIRE_RAPIDS, "", 127),
        (SAPPHIRE_RAPIDS, "avx512_core", 64),
    ],
)
def test_weights_have_7_bits_where_sums_of_products_saturate(
    flags: set[str], max_isa: str, largest: int
) -> None:
    assert largest_weight(flags, max_isa, "x86_64") == largest


def test_other_cpus_than_x86_take_8_bits() -> None:
    assert largest_weight(set(), "", "aarch64") == 127


def test_flags_are_those_of_the_first_core(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: A CPU\nflags\t\t: fpu avx2 avx_vnni\n\nflags\t\t: fpu\n")
    assert cpu_flags(cpuinfo) == {"fpu", "avx2", "avx_vnni"}
    assert cpu_flags(tmp_path / "none") == set()


def test_the_limit_of_onednn_has_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    assert onednn_max_isa() == ""
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX2")
    assert onednn_max_isa() == "AVX2"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    assert onednn_max_isa() == "AVX512_CORE"
