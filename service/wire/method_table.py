"""The methods of a service as the wire knows them, and the arguments that each needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from thriftpy2.thrift import TApplicationException, TException, TType


@dataclass(frozen=True)
class Method:
    """One method of the service.

    Attributes:
        name: as in the IDL.
        args: thriftpy2's struct of the arguments.
        result: thriftpy2's struct of the result or declared exception.
        call: the implementation.
        parameters: argument names in order.
        required: those without which it cannot be called.
        exceptions: declared exception class to the result's field.
        check: raises what refuses a call, seen its encoded arguments; they are not decoded then.
            Not asked where decoding costs no more than asking.
    """

    name: str
    args: type[Any]
    result: type[Any]
    call: Callable[..., Any]
    parameters: tuple[str, ...]
    required: frozenset[str]
    exceptions: dict[type[TException], str]
    check: Callable[[memoryview], None] | None

    def values(self, args: Any) -> list[Any]:
        """The arguments in order; TApplicationException where a required one is missing.

        Args:
            args: the decoded struct.
        """
        values = vars(args)
        if missing := missing_field(args, self.required):
            raise TApplicationException(
                TApplicationException.PROTOCOL_ERROR,
                f"{self.name} needs the field {missing!r}, and the call lacks it",
            )
        return [values[name] for name in self.parameters]


MethodTable = dict[bytes, Method]


def method_table(service: type[Any], implementation: object) -> MethodTable:
    """The methods of a service by wire name.

    Args:
        service: the service as thriftpy2 loaded it.
        implementation: an object with a method of each name; a parameter without a default is a
            required argument (the IDL does not tell required arguments from optional ones). It may
            have a `check_NAME` for each.
    """
    table: MethodTable = {}
    for name in service.thrift_services:
        args = getattr(service, f"{name}_args")
        result = getattr(service, f"{name}_result")
        call = getattr(implementation, name)
        signature = inspect.signature(call).parameters.values()
        table[name.encode()] = Method(
            name=name,
            args=args,
            result=result,
            call=call,
            parameters=tuple(field[1] for field in args.thrift_spec.values()),
            required=frozenset(p.name for p in signature if p.default is p.empty),
            exceptions={
                field[2]: field[1] for number, field in result.thrift_spec.items() if number != 0
            },
            check=getattr(implementation, f"check_{name}", None),
        )
    return table


def missing_field(struct: Any, required: frozenset[str] | None = None) -> str:
    """The path of the first required field that was not on the wire, or "".

    thriftpy2 leaves such a field None. `required` overrides what the struct declares.
    """
    values = vars(struct)
    for field_type, name, *rest in struct.thrift_spec.values():
        value = values[name]
        if value is None:
            if rest[-1] if required is None else name in required:
                return str(name)
        elif field_type == TType.STRUCT:
            if missing := missing_field(value):
                return f"{name}.{missing}"
        elif field_type == TType.LIST and isinstance(rest[0], tuple) and rest[0][0] == TType.STRUCT:
            for index, element in enumerate(value):
                if missing := missing_field(element):
                    return f"{name}[{index}].{missing}"
    return ""
