"""Identity and its other names."""

from __future__ import annotations

import pytest

from pipeline import pipe


@pytest.mark.parametrize("name", ["Identity", "Empty", "Identities"])
def test_the_data_itself_is_the_result(name: str) -> None:
    data = object()
    items = [{"data": data, "else": number} for number in range(3)]
    with pipe({"node": {"backend": f"S[{name},{name}]"}, "again": {"backend": name}}) as run:
        run([{**item, "node_name": "again"} for item in items])
        items = [{**item, "node_name": "node"} for item in items]
        run(items)
    assert all(item["result"] is data for item in items)
    assert [item["else"] for item in items] == [0, 1, 2]
