"""docs/reference-configuration.md is what the code says."""

from docs.tools.reference import PAGE, reference


def test_the_reference_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == reference(), "run: python docs/tools/reference.py"
