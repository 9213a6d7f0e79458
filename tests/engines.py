"""The engines that tests run on a CPU, as the table of providers has them."""

from __future__ import annotations

from pkgutil import resolve_name

from interfaces.engines import PROVIDERS

_CPU_PROVIDERS = [provider for provider in PROVIDERS if provider.device == "cpu"]

CPU_ENGINES = [provider.name for provider in _CPU_PROVIDERS]
CACHING_ENGINES = [
    provider.name for provider in _CPU_PROVIDERS if resolve_name(provider.target).keeps_cache
]
INT8_ENGINES = [provider.name for provider in _CPU_PROVIDERS if "int8" in provider.precisions]
FLOAT_RUNS = [
    (provider.name, precision)
    for provider in _CPU_PROVIDERS
    for precision in provider.precisions
    if precision != "int8"
]
"""Each engine with each of its floating-point precisions."""
