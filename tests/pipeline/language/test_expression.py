from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as settings_of_a_run
from hypothesis import strategies as st

from pipeline.errors import PipelineConfigError
from pipeline.language.expression import Expression, parse_expression

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
any_text = st.text(st.characters())  # lone surrogates too
texts = any_text | st.text(st.sampled_from("AS_k1[](),=:&;'\"\\ \n\t"))
settings = st.lists(
    st.tuples(st.lists(names, min_size=1, max_size=3).map("::".join), texts),
    max_size=3,
    unique_by=lambda setting: setting[0],
).map(tuple)
filters = st.none() | names
expressions = st.recursive(
    st.builds(Expression, names, settings=settings, filter=filters),
    lambda inner: st.builds(
        Expression, names, st.lists(inner, min_size=1, max_size=3).map(tuple), settings, filters
    ),
    max_leaves=8,
)
FEW = settings_of_a_run(max_examples=50)


def symbols(tree: Expression) -> list[str]:
    """What the tree is written with: blanks may stand between any two, and not inside one."""
    written = [] if tree.filter is None else ["(", tree.filter, ")"]
    written.append(tree.name)
    for number, (key, value) in enumerate(tree.settings):
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        written += ["," if number else "(", key, "=", f'"{quoted}"']
    written += [")"] if tree.settings else []
    for number, argument in enumerate(tree.arguments):
        written += ["," if number else "[", *symbols(argument)]
    return [*written, "]"] if tree.arguments else written


def error_lines(text: str) -> list[str]:
    with pytest.raises(PipelineConfigError) as caught:
        parse_expression(text)
    return str(caught.value).split("\n")


def parses_or_has_an_error_of_three_lines(text: str) -> None:
    try:
        tree = parse_expression(text)
    except PipelineConfigError as error:
        message, shown, caret = str(error).split("\n")
        assert message.startswith(("expected ", "'&' between backends"))
        assert message.isprintable()
        assert shown.isprintable()
        assert len(shown) < 140
        assert caret.strip(" ") == "^"
    else:
        assert parse_expression(str(tree)) == tree


@FEW
@given(expressions)
def test_what_is_printed_parses_to_the_same_tree(tree: Expression) -> None:
    assert parse_expression(str(tree)) == tree


@FEW
@given(expressions, st.data())
def test_blanks_may_stand_between_any_two_symbols(tree: Expression, data: Any) -> None:
    blanks = st.text(st.sampled_from(" \t\n\r\u3000"), max_size=3)
    text = "".join(data.draw(blanks) + symbol for symbol in symbols(tree)) + data.draw(blanks)
    assert parse_expression(text) == tree


# The long examples take a while on a machine with other work.
@given(texts)
@example("(" * 10_000)
@example("A[" * 10_000)
@example("A[" * 10_000 + "B" + "]" * 10_000)
@example("A(k='" + "\\'" * 100_000)
@example("A(k=" + "v" * 100_000)
def test_any_text_parses_or_has_a_clear_error(text: str) -> None:
    parses_or_has_an_error_of_three_lines(text)


@FEW
@given(expressions, st.data())
def test_a_slip_in_an_expression_parses_or_has_a_clear_error(tree: Expression, data: Any) -> None:
    text = str(tree)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 2, len(text))))
    slip = data.draw(st.sampled_from(["", *"[](),=:&'\"\\ A"]))
    parses_or_has_an_error_of_three_lines(text[:start] + slip + text[end:])


def test_spaces_may_stand_anywhere_between_symbols() -> None:
    spaced = parse_expression(" Torch [ Sequential[ResizeMat,cvtColorMat, Mat2Tensor] ] ")
    assert str(spaced) == "Torch[Sequential[ResizeMat,cvtColorMat,Mat2Tensor]]"


def test_a_filter_alone_stands_before_an_identity() -> None:
    identity = Expression("Identity", filter="or")
    assert parse_expression("S[ (or) , A]") == Expression("S", (identity, Expression("A")))
    assert parse_expression("S[A,(or)]") == Expression("S", (Expression("A"), identity))


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("A[B]", Expression("A", (Expression("B"),))),
        ("A[B,C]", Expression("A", (Expression("B"), Expression("C")))),
        ("(or)A", Expression("A", filter="or")),
        (
            "ResizeMat(resize_w=2,resize_h=1)",
            Expression("ResizeMat", settings=(("resize_w", "2"), ("resize_h", "1"))),
        ),
        (
            "(or)A(key=value)[(Skip)B]",
            Expression(
                "A", (Expression("B", filter="Skip"),), settings=(("key", "value"),), filter="or"
            ),
        ),
    ],
)
def test_each_form_is_printed_as_it_was_written(text: str, tree: Expression) -> None:
    assert parse_expression(text) == tree
    assert str(tree) == text


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("224", "224"),
        (" a folder/x.trt ", "a folder/x.trt"),
        ("a=b[c](d", "a=b[c](d"),
        ("1&4;don't", "1&4;don't"),
        (r"C:\models", r"C:\models"),
        ("'0.5,0.25'", "0.5,0.25"),
        ('"(a), [b]"', "(a), [b]"),
        ("' a '", " a "),
        ("''", ""),
        ('"it\'s"', "it's"),
        (r"'it\'s \"\\'", "it's \"\\"),
        ("'a\nb'", "a\nb"),
        ("名前", "名前"),
    ],
)
def test_values(written: str, value: str) -> None:
    """Plain text up to ',' or ')', or anything in quotes."""
    tree = parse_expression(f"A(model::cache={written},k=1)")
    assert tree.settings == (("model::cache", value), ("k", "1"))


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ("0.5,0.25", "A(k='0.5,0.25')"),
        ("it's", 'A(k="it\'s")'),
        ("'\"", r"""A(k='\'"')"""),
        ("a b", "A(k='a b')"),
        ("", "A(k='')"),
    ],
)
def test_values_are_printed_in_quotes_where_they_need_them(value: str, printed: str) -> None:
    assert str(Expression("A", settings=(("k", value),))) == printed


def test_names_come_outermost_first_and_without_filters() -> None:
    tree = parse_expression("S[(or)A(k=1)[B],C]")
    assert tree.names() == ["S", "A", "B", "C"]


COMPOSITE = (
    "'&' between backends is not supported; join two nodes by next, or give one backend several "
    "profiles with ';', as in max = \"1;4\""
)
SETTING = "expected a setting such as key=value"
EQUALS = "expected '='; settings are key=value, and a filter stands before its backend, as in (or)A"


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
        # names
        ("7A", "expected the name of a backend", 0),
        ("S[,A]", "expected the name of a backend", 2),
        ("[A]", "expected the name of a backend", 0),
        ("名", "expected the name of a backend", 0),
        # what follows a backend
        ("A,B", "expected one backend; several in turn go in brackets, as in S[A,B]", 1),
        ("S[A],B", "expected one backend; several in turn go in brackets, as in S[A,B]", 4),
        ("S[A][B]", "expected ',' or the end", 4),
        ("A(k=1)(l=2)", "expected '['", 6),
        ("A(k=1) B", "expected '['", 7),
        ("A[B](k=1)", "expected settings before the brackets, as in A(key=value)[B]", 4),
        ("S[A [B] (k=1)]", "expected settings before the brackets, as in A(key=value)[B]", 8),
        # composite nodes
        ("A&B", COMPOSITE, 1),
        ("S[A] & S[B]", COMPOSITE, 5),
        ("S[(or)A(k=1)&B]", COMPOSITE, 12),
        # filters
        ("()A", "expected the name of a filter", 1),
        ("(", "expected the name of a filter", 1),
        ("((or))A", "expected the name of a filter", 1),
        ("(or)", "expected the name of the filter's backend", 4),
        ("(or)(swap)A", "expected the name of the filter's backend", 4),
        ("(or A", "expected ')'; settings stand behind their backend, as in A(key=value)", 4),
        ("(k=1)A", "expected ')'; settings stand behind their backend, as in A(key=value)", 2),
        # settings
        ("A()", SETTING, 2),
        ("A( )", SETTING, 3),
        ("A(", SETTING, 2),
        ("A(k=1,)", SETTING, 6),
        ("A(,k=1)", SETTING, 2),
        ("A(=1)", SETTING, 2),
        ("A('k'=1)", SETTING, 2),
        ("S[A(or)]", EQUALS, 6),
        ("A(k)", EQUALS, 3),
        ("A(k: 1)", EQUALS, 3),
        ("A(model::=1)", EQUALS, 7),
        ("A(k=1,l=2, k=3)", "expected a key that has no value yet", 11),
        # values
        ("A(k=)", "expected a value; the empty one is ''", 4),
        ("A(k= ,l=1)", "expected a value; the empty one is ''", 5),
        ("A(k=", "expected a value; the empty one is ''", 4),
        ("A(k=1", "expected ',' or ')'", 5),
        ("S[A(k=1]", "expected ',' or ')'", 8),
        ("A(k='1' 2)", "expected ',' or ')'", 8),
        ("A(k=(1))", "expected '['", 7),
        ("A(k='1)", "expected another ' that closes this one", 4),
        ("A(k= \"1')", 'expected another " that closes this one', 5),
        (r"A(k='C:\')", "expected another ' that closes this one", 4),
        (r"A(k='C:\models')", r"expected \\, \' or \" for a backslash in quotes", 7),
    ],
)
def test_a_syntax_error_has_a_caret_under_the_mistake(
    text: str, expected: str, caret_at: int
) -> None:
    message, shown, caret = error_lines(text)
    assert message == f"{expected}:"
    assert shown == f"    {text}"
    assert caret == " " * (4 + caret_at) + "^"


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_of_several_lines_the_one_with_the_mistake_is_shown(line_end: str) -> None:
    lines = ["S[", "  DecodeMat,", "\tResizeMat(resize_h:224),", "  Mat2Tensor", "]", ""]
    message, shown, caret = error_lines(line_end.join(lines))
    assert message == f"{EQUALS} (line 3 of 6):"
    assert shown.rstrip() == "     ResizeMat(resize_h:224),"
    assert caret == " " * shown.index(":") + "^"


def test_where_something_is_missing_at_the_end_the_caret_is_behind_the_last_symbol() -> None:
    message, shown, caret = error_lines("S[\n  DecodeMat \n\n ")
    assert message == "expected ',' or ']' (line 2 of 4):"
    assert shown == "      DecodeMat "
    assert caret == "               ^"


@pytest.mark.parametrize(
    ("before", "shown_before", "behind", "shown_behind"),
    [
        ("A," * 3, "S[A,A,A,", "", ""),
        ("A," * 1000, "..." + "A," * 30, "", ""),
        ("A," * 3, "S[A,A,A,", ",A" * 1000, ",A" * 29 + ",..."),
        ("A," * 1000, "..." + "A," * 30, ",A" * 1000, ",A" * 29 + ",..."),
    ],
)
def test_of_a_long_line_the_part_around_the_mistake_is_shown(
    before: str, shown_before: str, behind: str, shown_behind: str
) -> None:
    _, shown, caret = error_lines(f"S[{before}!{behind}")
    assert shown == f"    {shown_before}!{shown_behind}"
    assert caret == " " * (4 + len(shown_before)) + "^"


@pytest.mark.parametrize(
    ("value", "shown_value", "columns"),
    [
        ("名前", "名前", 4),
        ("e\u0301", "e\u0301", 1),
        ("\t\u00a0.", "  .", 3),
        ("\x1b\ud800", "\ufffd\ufffd", 2),
    ],
)
def test_the_caret_is_right_in_a_terminal(value: str, shown_value: str, columns: int) -> None:
    """Wide characters, accents, blanks of other kinds, and what a terminal cannot show."""
    _, shown, caret = error_lines(f"A(k='{value}'!)")
    assert shown == f"    A(k='{shown_value}'!)"
    assert caret == " " * (4 + 5 + columns + 1) + "^"


def test_brackets_go_a_hundred_deep() -> None:
    deepest = "A[" * 100 + "B" + "]" * 100
    assert str(parse_expression(deepest)) == deepest
    message, shown, caret = error_lines(f"A[{deepest}]")
    assert message == "expected at most 100 brackets inside one another:"
    assert shown == "    ..." + "[A" * 30 + "[B" + "]" * 58 + "..."
    assert caret == " " * (4 + 3 + 60) + "^"


def test_brackets_side_by_side_do_not_count_as_deep() -> None:
    wide = f"S[{','.join(['A[B]'] * 200)}]"
    assert str(parse_expression(wide)) == wide
