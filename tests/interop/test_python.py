"""Apache Thrift's own Python library, and what the calls that all clients make have to show."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import pytest
from thrift.protocol.TBinaryProtocol import TBinaryProtocol, TBinaryProtocolAccelerated
from thrift.transport.TTransport import TBufferedTransport, TFramedTransport

from tests.interop.needs import missing
from tests.interop.python_clients import ApacheClient
from tests.interop.scenario import Report, call, report_of

BLUE = "blau, in UTF-8: größer"


def strict(transport: Any) -> TBinaryProtocol:
    return TBinaryProtocol(transport, strictRead=True, strictWrite=True)


def accelerated(transport: Any) -> TBinaryProtocol:
    if find_spec("thrift.protocol.fastbinary") is None:
        missing("the C extension of the package thrift")
    return TBinaryProtocolAccelerated(transport, fallback=False)


def test_the_calls_have_the_answers_that_the_contract_promises(expected: Report) -> None:
    labels = ["red", "green", BLUE]
    for call_name in ("infer_batch", "without_options"):
        assert [expected[f"{call_name}.{i}.label"] for i in range(3)] == labels
    assert [expected[f"with_options.{i}.label"] for i in range(4)] == ["red", "", "green", BLUE]
    assert [expected[f"with_options.{i}.uuid"] for i in range(4)] == ["u0", "bad", "u1", "u2"]
    assert [expected[f"with_options.{i}.class_id"] for i in (0, 2, 3)] == ["0", "1", "2"]
    assert expected["with_options.1.error.code"] == "1"
    assert expected["with_options.0.top_k.0.label"] == "red"
    assert "with_options.0.top_k.1.label" in expected
    assert "with_options.0.top_k.2.label" not in expected
    stages = expected["with_options.0.stages"].split(",")
    assert {"asked.forward", "decoder.forward", "model.forward"} <= set(stages)
    assert "without_options.0.stages" not in expected
    assert [expected[f"pipelined.{i}.label"] for i in range(2)] == labels[:2]
    assert (expected["server_info.handler"], expected["health.ready"]) == ("pipeline", "true")
    assert expected["invalid_image.uuid"] == "bad"
    assert "top_k must be 1 to 3, got 0" in expected["invalid_request.message"]
    assert expected["deadline_exceeded.message"] == "too late"
    assert expected["internal_error.error_id"] == "12"
    assert "no client's business" not in expected["internal_error.message"]
    assert expected["unknown_method.type"] == "1"
    assert "unknown method 'classify'" in expected["unknown_method.message"]
    assert expected["missing_argument.type"] == "7"
    assert "'params'" in expected["missing_argument.message"]
    assert expected["overloaded.retry_after_ms"] == "positive"
    assert expected["overloaded.other.label"] == "red"


@pytest.mark.parametrize("transport", [TFramedTransport, TBufferedTransport])
@pytest.mark.parametrize("protocol", [strict, accelerated])
def test_apaches_python_gets_what_thriftpy2_gets(
    port: int, images: Sequence[bytes], expected: Report, transport: Any, protocol: Any
) -> None:
    client = ApacheClient(port, transport, protocol)
    other = ApacheClient(port, transport, protocol)
    assert report_of(client, other, images) == expected
    client.close()
    other.close()


@pytest.mark.parametrize("transport", [TFramedTransport, TBufferedTransport])
def test_a_missing_argument_is_told_to_apaches_python(port: int, transport: Any) -> None:
    """Its stubs leave out what is None, and the connection is good for more calls."""
    client = ApacheClient(port, transport)
    with pytest.raises(client.application_error, match="'params'"):
        call(client, "infer_batch", None)
    assert call(client, "health").ready
    client.close()
