import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipelineConfigError
from pipeline.expression import Expression, parse_expression

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
expressions = st.recursive(
    names.map(Expression),
    lambda inner: st.builds(Expression, names, st.lists(inner, min_size=1, max_size=3).map(tuple)),
    max_leaves=8,
)


@given(expressions)
def test_what_is_printed_parses_to_the_same_tree(tree: Expression) -> None:
    assert parse_expression(str(tree)) == tree


def test_spaces_may_stand_anywhere_between_symbols() -> None:
    spaced = parse_expression(" Torch [ Sequential[ResizeMat,cvtColorMat, Mat2Tensor] ] ")
    assert str(spaced) == "Torch[Sequential[ResizeMat,cvtColorMat,Mat2Tensor]]"


@pytest.mark.parametrize(
    ("text", "expected", "caret_at"),
    [
        ("S[DecodeMat", "expected ',' or ']'", 11),
        ("S[DecodeMat,]", "expected the name of a backend", 12),
        ("S[]", "expected the name of a backend", 2),
        ("", "expected the name of a backend", 0),
        ("S[A]]", "expected ',' or the end", 4),
        ("S[A]B", "expected ',' or the end", 4),
        ("A B", "expected '['", 2),
        ("S[A;B]", "expected ',' or ']'", 3),
    ],
)
def test_a_syntax_error_has_a_caret_under_the_mistake(
    text: str, expected: str, caret_at: int
) -> None:
    with pytest.raises(PipelineConfigError) as caught:
        parse_expression(text)
    message, shown, caret = str(caught.value).split("\n")
    assert message == f"{expected}:"
    assert shown == f"    {text}"
    assert caret == " " * (4 + caret_at) + "^"
