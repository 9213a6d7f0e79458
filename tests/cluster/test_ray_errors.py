"""What Ray says of failures, in one line."""

from __future__ import annotations

import logging

import pytest

from service.errors import ConfigurationError
from tests.cluster.needs import needs_ray

pytestmark = needs_ray

# As Ray Serve says it of a deployment.
DEPLOYMENT = """The deployment failed to start 3 times in a row. See controller logs. Error:
\x1b[36mray::ServeReplica:ab:replica.initialize()\x1b[39m (pid=7, ip=10.0.0.1)
  File "/usr/lib/python3.11/concurrent/futures/_base.py", line 449, in result
    return self.__get_result()
           ^^^^^^^^^^^^^^^^^^^
service.errors.ConfigurationError: model = 'x.onnx': there is no file

The above exception was the direct cause of the following exception:

\x1b[36mray::ServeReplica:ab:replica.initialize()\x1b[39m (pid=7, ip=10.0.0.1)
  File "/opt/ray/serve/_private/replica.py", line 1, in initialize_and_get_metadata
    raise RuntimeError(traceback.format_exc()) from None
RuntimeError: Traceback (most recent call last):
  File "/opt/ray/serve/_private/replica.py", line 2, in initialize_and_get_metadata
    await self._replica_impl.initialize(deployment_config)
service.errors.ConfigurationError: model = 'x.onnx': there is no file
"""


def test_a_traceback_is_what_it_ends_with() -> None:
    from cluster.ray_errors import in_words

    assert in_words(DEPLOYMENT) == (
        "The deployment failed to start 3 times in a row. See controller logs. Error: "
        "ConfigurationError: model = 'x.onnx': there is no file"
    )


def test_an_error_of_a_task_is_its_cause() -> None:
    from ray.exceptions import RayTaskError

    from cluster.ray_errors import in_words

    cause = ConfigurationError("there is no file")
    error = RayTaskError("f", DEPLOYMENT, cause, proctitle="p", pid=1, ip="10.0.0.1")
    assert in_words(error) == "there is no file"
    assert in_words(TimeoutError()) == "TimeoutError"


def test_what_ray_raises_is_one_line_and_a_traceback_for_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from ray.exceptions import RayError

    from cluster.ray_errors import asking

    caplog.set_level(logging.INFO)
    with pytest.raises(ConnectionError) as raised, asking("Ray Serve"):
        raise RayError("The actor died.\nTraceback (most recent call last):\n  File x")
    line = str(raised.value)
    assert "\n" not in line
    assert "Traceback" not in line
    assert line.startswith("Ray Serve does not answer: ")
    assert "`ray status`" in line
    assert not caplog.records
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ConnectionError), asking("Ray Serve"):
        raise RayError("The actor died.")
    assert [bool(record.exc_info) for record in caplog.records] == [True]
