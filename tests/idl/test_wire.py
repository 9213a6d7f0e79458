"""What is on the wire stays there, and the IDL explains all of it."""

from __future__ import annotations

import inspect
import pickle
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from thriftpy2.thrift import TType

import idl
from idl import inference
from idl.from_thrift import parsed, python_of

IDL = Path(idl.__file__).parent / "inference.thrift"
PARSED = parsed()
KEPT = (Path(__file__).parent / "wire.txt").read_text(encoding="utf-8").splitlines()[1:]
# An enum, struct, exception or service; a field; a value of an enum; a call.
DECLARATION = re.compile(r"(enum|struct|exception|service) |\d+: \w+ |[A-Z_]+ = \d|[\w<>]+ \w+\(")


def _type(code: int, inner: Any = None) -> str:
    """A type as thriftpy2 describes it, as words."""
    if code == TType.LIST:
        return f"list<{_element(inner)}>"
    if code == TType.MAP:
        return f"map<{','.join(map(_element, inner))}>"
    return inner.__name__ if inner else str(TType._VALUES_TO_NAMES[code]).lower()


def _element(kind: Any) -> str:
    return _type(*kind) if isinstance(kind, tuple) else _type(kind)


def _fields(name: str, spec: dict[int, Any]) -> Iterator[str]:
    for number, (code, field, *inner, required) in sorted(spec.items()):
        yield f"{name} {number} {_type(code, *inner)} {field}{' required' if required else ''}"


def _on_the_wire(module: ModuleType = inference) -> Iterator[str]:
    """Every value of an enum, every field of a struct or an exception, every call."""
    meta = module.__thrift_meta__
    for enum in meta["enums"]:
        yield from (f"{enum.__name__} {value} {n}" for n, value in enum._NAMES_TO_VALUES.items())
    for struct in (*meta["structs"], *meta["exceptions"]):
        yield from _fields(struct.__name__, struct.thrift_spec)
    for call in module.InferenceService.thrift_services:
        yield call
        for part in (f"{call}_args", f"{call}_result"):
            yield from _fields(part, getattr(module.InferenceService, part).thrift_spec)


def _structs(module: ModuleType) -> dict[str, Any]:
    """All structs and exceptions, also those that calls are made of, by their names."""
    named = {**vars(module), **vars(module.InferenceService)}
    return {name: it for name, it in named.items() if hasattr(it, "thrift_spec")}


def test_the_python_of_the_idl_is_up_to_date() -> None:
    text = IDL.with_name("generated.py").read_text(encoding="utf-8")
    assert text == python_of(PARSED), "write it again: python -m idl.from_thrift"


def test_the_python_of_the_idl_is_what_thriftpy2_makes_of_it() -> None:
    assert [*_on_the_wire()] == [*_on_the_wire(PARSED)]
    made, expected = _structs(inference), _structs(PARSED)
    assert made.keys() == expected.keys()
    for name, struct in expected.items():
        assert made[name].__base__ is struct.__base__
        assert made[name]._ttype == struct._ttype
        assert [*made[name].thrift_spec] == [*struct.thrift_spec]
        assert inspect.signature(made[name]) == inspect.signature(struct)
        assert getattr(made[name], "oneway", None) == getattr(struct, "oneway", None)


def test_structs_can_be_pickled() -> None:
    params = inference.InferenceParams("u", b"x")
    assert pickle.loads(pickle.dumps(params)) == params  # noqa: S301 (its own)


def test_every_field_has_the_number_and_the_type_that_it_had() -> None:
    missing = set(KEPT) - set(_on_the_wire())
    assert not missing, "clients in the field encode exactly this"


def test_what_is_new_in_a_struct_is_optional() -> None:
    known = {line.split()[0] for line in KEPT}
    added = (line for line in _on_the_wire() if line not in KEPT and line.split()[0] in known)
    assert not [line for line in added if line.endswith(" required")]


def test_every_language_has_its_namespace() -> None:
    assert set(PARSED.__thrift_namespaces__) == {"py", "java", "go", "js"}
    # Upstream's, whose stubs import it.
    assert PARSED.__thrift_namespaces__["py"] == "inference"


def test_everything_that_is_declared_has_its_documentation() -> None:
    lines = [line.strip() for line in IDL.read_text(encoding="utf-8").splitlines() if line.strip()]
    # What a call throws is documented with the exceptions.
    throws = ("invalid_image,", "invalid_request,", "overloaded,", "deadline_exceeded,", "_error,")
    declared = [
        (line, before)
        for before, line in pairwise(lines)
        if DECLARATION.match(line) and not line.endswith(throws)
    ]
    assert len(declared) > 60
    assert not [line for line, before in declared if not before.endswith("*/")]
