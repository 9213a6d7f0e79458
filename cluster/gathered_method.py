"""The method by which a front end gives a replica several calls in one message.

It is no part of the IDL, since it is nothing for clients. Its arguments are those of
`infer_images`, several times in a list. Each of these calls is answered by itself, as soon as it is
done, with the reply of `infer_images` whose sequence id is the call's place in the list. A byte
that comes meanwhile is the place of a call for which nobody waits any more; no other message
follows it on that connection.
"""

from __future__ import annotations

from thriftpy2.thrift import TPayload, TType

from idl import inference

NAME = "infer_gathered"
"""Its name on the wire."""

EACH = "infer_images"
"""The method of each call."""

MOST_CALLS = 16
"""Of one message."""


class GatheredArguments(TPayload):
    """The arguments' struct, as thriftpy2 has it."""

    _ttype = TType.STRUCT
    thrift_spec = {  # noqa: RUF012 (thriftpy2 reads it)
        1: (TType.LIST, "calls", (TType.STRUCT, inference.InferenceService.infer_images_args), True)
    }
    default_spec = [("calls", None)]  # noqa: RUF012
