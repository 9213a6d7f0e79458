"""`python -m pipeline operators`: what a file may name, told by the code itself."""

from __future__ import annotations

import inspect
import json
import textwrap
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from interfaces.markdown import prose_table
from interfaces.names import closest_name_hint, shown
from pipeline.backends.filters import registered_filters
from pipeline.backends.interface import Backend, Container
from pipeline.backends.registry import registered_backends
from pipeline.commands.console import say, table, terminal_width
from pipeline.commands.effective_settings import value_text
from pipeline.errors import PipelineConfigError
from pipeline.language.settings import REQUIRED, SCHEDULING, Setting
from pipeline.language.torchpipe_names import (
    BACKEND,
    FILTER,
    KEY,
    TorchpipeName,
    Verdict,
    torchpipe_names,
)

_INDENT = "    "


def operators(options: Namespace) -> int:
    """Print the lists, or what is known of one name.

    Returns:
        0, or 1 for a name of torchpipe's that is not supported here.
    """
    if options.torchpipe:
        say(torchpipe_tables())
        return 0
    if options.markdown:
        say(operator_reference())
        return 0
    if not options.name:
        say("\n\n".join(_lists()))
        return 0
    here = list(_descriptions(options.name))
    rows = _rows_of(options.name)
    if not here and not rows:
        known = {*registered_backends(), *registered_filters(), *(s.name for s in _settings())}
        raise PipelineConfigError(
            f"there is no operator, filter or key {shown(options.name)}"
            f"{closest_name_hint(options.name, known)} Without a name all are listed"
        )
    say("\n\n".join([*here, *map(_of_torchpipe, rows)]))
    return 0 if here or all(row.verdict is Verdict.IGNORED for row in rows) else 1


def _lists() -> Iterator[str]:
    width = terminal_width()
    operators_ = [
        (", ".join(names), ", ".join(s.name for s in cls.settings) or "-", summary(cls))
        for cls, names in sorted(names_of(registered_backends()).items(), key=lambda it: it[1])
    ]
    yield table(("operator", "keys", "what it does"), operators_, width)
    filters = [
        (", ".join(names), summary(function))
        for function, names in names_of(registered_filters()).items()
    ]
    yield table(("filter", "what it does"), filters, width)
    keys = [setting_row(setting) for setting in SCHEDULING]
    yield table(("key of every node", "default", "unit", "what it says"), keys, width)
    yield "python -m pipeline operators NAME tells more of one, also of a name of torchpipe's."


def names_of(registered: Mapping[str, Any]) -> dict[Any, list[str]]:
    """All names of each object."""
    names: dict[Any, list[str]] = {}
    for name, value in registered.items():
        names.setdefault(value, []).append(name)
    return names


def summary(described: Any) -> str:
    """The first paragraph of a class's or function's description, in one line."""
    return paragraphs(described)[0]


def paragraphs(described: Any) -> list[str]:
    """All paragraphs of it, each in one line."""
    # Of a class written in Python its own words; those of a class without are object's.
    described = getattr(described, "adapted", described)
    text = inspect.cleandoc(described.__doc__ or "without a description").replace("`", "")
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def _descriptions(name: str) -> Iterator[str]:
    """What is here under a name: an operator, a filter, a key, which may name its backend."""
    backend, _, key = name.rpartition("::")
    if backend in registered_backends() and _reads(registered_backends()[backend], key):
        yield _describe_operator(backend, registered_backends()[backend])
    if name in registered_backends():
        yield _describe_operator(name, registered_backends()[name])
    if name in registered_filters():
        function = registered_filters()[name]
        text = _wrapped(paragraphs(function))
        yield f"filter {', '.join(names_of(registered_filters())[function])}\n{text}"
    found = [setting for setting in _settings() if setting.name == name]
    if found:
        readers = [cls for cls in names_of(registered_backends()) if _reads(cls, name)]
        names = [names_of(registered_backends())[cls][0] for cls in readers]
        by = ", ".join(names) if names else "every node"
        header = ("key", "default", "unit", "what it says")
        yield (
            f"{table(header, [setting_row(found[0])], terminal_width())}\n\n"
            f"{_wrapped([f'expected: {found[0].expected}', f'read by: {by}'])}"
        )


def _settings() -> list[Setting]:
    backends = names_of(registered_backends())
    return [*SCHEDULING, *(setting for cls in backends for setting in cls.settings)]


def _reads(cls: type[Backend], key: str) -> bool:
    return any(setting.name == key for setting in cls.settings)


def _describe_operator(name: str, cls: type[Backend]) -> str:
    names = names_of(registered_backends())[cls]
    others = [other for other in names if other != name]
    title = f"operator {name}" + (f", also {', '.join(others)}" if others else "")
    parts = [f"{title}\n{_wrapped(paragraphs(cls))}"]
    if (counterpart := getattr(cls, "cpu_counterpart", None)) is not None:
        parts.append(f"It needs an NVIDIA GPU; on a CPU use {counterpart}.")
    if cls.settings:
        rows = [(*setting_row(setting), setting.expected) for setting in cls.settings]
        header = ("key", "default", "unit", "what it says", "expected")
        parts.append(table(header, rows, terminal_width()))
    parts.append("An example:\n\n" + textwrap.indent(example(name, cls), _INDENT))
    return "\n\n".join(parts)


def _wrapped(paragraphs: Iterable[str]) -> str:
    return "\n".join(textwrap.fill(paragraph, terminal_width()) for paragraph in paragraphs)


def setting_row(setting: Setting) -> tuple[str, str, str, str]:
    """Name, default, unit and meaning of a key."""
    needed = setting.default is REQUIRED or (
        setting.default is None and setting.example is not None
    )
    default = "(needed)" if needed else value_text(setting.default)
    return setting.name, default, setting.unit or "-", setting.help or setting.expected


def example(name: str, cls: type[Backend]) -> str:
    """A node of a TOML file with the operator and the settings that it needs."""
    expression = f"{name}[Identity]" if issubclass(cls, Container) else name
    lines = ["[node]", f"backend = {json.dumps(expression)}"]
    for setting in cls.settings:
        if setting.example is not None:
            key = json.dumps(setting.name) if ":" in setting.name else setting.name
            lines.append(f"{key} = {json.dumps(setting.example)}")
    return "\n".join(lines)


def _rows_of(name: str) -> list[TorchpipeName]:
    """Torchpipe's rows for a name: all that say something beyond that it is here."""
    rows = [torchpipe_names(kind).get(name) for kind in (BACKEND, FILTER, KEY)]
    return [row for row in rows if row is not None and (row.text or not _is_here(row))]


def _is_here(row: TorchpipeName) -> bool:
    return row.verdict in (Verdict.HERE, Verdict.ALIAS)


def _of_torchpipe(row: TorchpipeName) -> str:
    sources = ", ".join(f"{branch}: {path}" for branch, path in row.sources.items())
    return _wrapped([f"torchpipe's {row.kind} {row.name} {row.sentence()}", f"({sources})"])


def operator_reference() -> str:
    """The operators and filters of this package, and the keys of every node, as Markdown."""
    parts = ["### Keys of every node", _markdown_keys(SCHEDULING), "### Operators"]
    backends = sorted(names_of(registered_backends()).items(), key=lambda it: it[1][0].lower())
    for cls, names in backends:
        if not _is_own(cls):
            continue
        parts.append(f"#### {names[0]}")
        told = paragraphs(cls)
        if len(names) > 1:
            told.append(f"Also: {', '.join(f'`{name}`' for name in names[1:])}.")
        if (counterpart := getattr(cls, "cpu_counterpart", None)) is not None:
            told.append(f"It needs an NVIDIA GPU; on a CPU use `{counterpart}`.")
        parts += told
        if cls.settings:
            parts.append(_markdown_keys(cls.settings))
    parts.append("### Filters")
    rows = [
        (", ".join(f"`{name}`" for name in names), " ".join(paragraphs(function)))
        for function, names in names_of(registered_filters()).items()
        if _is_own(function)
    ]
    parts.append(prose_table(["filter", "what it does"], rows))
    return "\n\n".join(map(str.strip, parts))


def _is_own(registered: Any) -> bool:
    """Whether this package has registered it, and not a user's file."""
    module: str = getattr(registered, "adapted", registered).__module__
    return module.startswith("pipeline.")


def _markdown_keys(settings: Iterable[Setting]) -> str:
    rows = []
    for setting in settings:
        name, default, unit, says = setting_row(setting)
        told = says if unit == "-" else f"{says} ({unit})"
        rows.append((f"`{name}`", default, told, setting.expected))
    return prose_table(["key", "default", "what it says", "expected"], rows)


def torchpipe_tables() -> str:
    """All names of torchpipe with what becomes of them, as Markdown."""
    parts = []
    for kind in (BACKEND, FILTER, KEY):
        by_sentence: dict[tuple[Verdict, str], list[str]] = {}
        for row in torchpipe_names(kind).values():
            text = f"another name of `{row.text}`" if row.verdict is Verdict.ALIAS else row.text
            by_sentence.setdefault((row.verdict, text), []).append(f"`{row.name}`")
        rows = [
            (", ".join(names), _WORDS[verdict], text)
            for verdict in Verdict
            for (found, text), names in by_sentence.items()
            if found is verdict
        ]
        parts += [f"### {kind.capitalize()}s", prose_table([kind, "here", ""], rows)]
    return "\n\n".join(map(str.strip, parts))


_WORDS = {
    Verdict.HERE: "yes",
    Verdict.ALIAS: "yes",
    Verdict.IGNORED: "ignored",
    Verdict.INSTEAD: "no",
}
