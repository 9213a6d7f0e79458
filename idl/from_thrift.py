"""`python -m idl.from_thrift` writes `generated.py`: what thriftpy2 makes of `inference.thrift`.

Otherwise each process would build a grammar, and parse the IDL, when it starts.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from types import ModuleType
from typing import Any

import thriftpy2
from thriftpy2.thrift import TException, TPayload

_HEAD = '''\
"""The wire contract: written by `python -m idl.from_thrift`. Change `inference.thrift` instead."""

from thriftpy2.thrift import TException, TPayload
'''


def parsed() -> ModuleType:
    """The IDL as thriftpy2 reads it."""
    with as_file(files("idl") / "inference.thrift") as path:
        module: ModuleType = thriftpy2.load(str(path), module_name="inference_thrift")
    return module


def python_of(module: ModuleType) -> str:
    """The classes of a module of thriftpy2's, as the text of a module.

    Each comes before those that use it, as in the IDL.
    """
    declarations = [it for it in vars(module).values() if isinstance(it, type)]
    classes = ["\n".join(_class(declared)) for declared in declarations]
    meta = {
        kind: [declared.__name__ for declared in its]
        for kind, its in module.__thrift_meta__.items()
    }
    lines = [f"    {kind!r}: [{', '.join(names)}]," for kind, names in meta.items()]
    table = "\n".join(["__thrift_meta__ = {", *lines, "}"])
    return "\n\n".join([_HEAD, *classes, table]) + "\n"


def _class(declared: type) -> list[str]:
    """Its lines."""
    known: dict[str, Any] = dict(vars(declared))
    if issubclass(declared, TPayload):
        base = TException if issubclass(declared, TException) else TPayload
        kept = ["_ttype", "thrift_spec", "default_spec", *(["oneway"] if "oneway" in known else [])]
        return [f"class {declared.__name__}({base.__name__}):", *_attributes(known, kept)]
    if "thrift_services" in known:
        lines = [f"class {declared.__name__}:", *_attributes(known, ["thrift_services"])]
        for call in known["thrift_services"]:
            for part in (known[f"{call}_args"], known[f"{call}_result"]):
                lines += ["", *(f"    {line}" for line in _class(part))]
        return lines
    kept = ["_ttype", "_VALUES_TO_NAMES", "_NAMES_TO_VALUES", *known["_NAMES_TO_VALUES"]]
    return [f"class {declared.__name__}:", *_attributes(known, kept)]


def _attributes(known: dict[str, Any], names: list[str]) -> list[str]:
    return [f"    {name} = {_literal(known[name])}" for name in names]


def _literal(value: Any) -> str:
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))})"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_literal(k)}: {_literal(v)}' for k, v in value.items())}}}"
    return repr(value)


if __name__ == "__main__":
    Path(__file__).with_name("generated.py").write_text(python_of(parsed()), encoding="utf-8")
