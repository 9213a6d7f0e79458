"""What was given to the server: on the command line, in the environment and in its file.

Of these the first that has an option decides; repeatable options are gathered from all of them, so
that the first decides for each key.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interfaces.command_line import Parser
from interfaces.names import closest_name_hint, shown
from interfaces.options import Option, dashed
from service.errors import ConfigurationError
from service.options.server_arguments import PROGRAM, server_options
from service.options.server_file import server_table, texts_of_file

PREFIX = "THRIFTPIPE_"
OTHER_VARIABLES = frozenset(
    {
        # Of users: where engines are cached, and the key of encrypted ones.
        *("THRIFTPIPE_CACHE_DIR", "THRIFTPIPE_CACHE_KEY"),
        # From a process of this project to those that it starts.
        *("THRIFTPIPE_CORES", "THRIFTPIPE_SHARED_FOLDER", "THRIFTPIPE_WHY_SO_MANY_WORKERS"),
        *("THRIFTPIPE_OPTIONS_GIVEN", "THRIFTPIPE_PEER", "THRIFTPIPE_DECODE_MEMORY_BYTES"),
        # Of tests and measurements.
        *("THRIFTPIPE_COMMIT", "THRIFTPIPE_REFERENCE_PYTHON", "THRIFTPIPE_REQUIRE_INTEROP"),
        "THRIFTPIPE_REQUIRE_CLUSTER",
    }
)
"""Variables with the prefix that are no options."""

_COMMAND_LINE = "command line"
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
# What Kubernetes sets in each pod for a Service whose name is, or begins with, thriftpipe.
_OF_KUBERNETES = re.compile(r"THRIFTPIPE_(\w+_)?(SERVICE_(HOST|PORT)|PORT_\d)")
_KUBERNETES_HINT = (
    "; Kubernetes sets such variables for a Service whose name begins with thriftpipe, unless the "
    "pod has enableServiceLinks: false"
)

# User and password.
_SECRET_OF_URL = re.compile(r"//[^/@\s]*@")

_Texts = dict[str, list[str]]


@dataclass(frozen=True)
class GivenOption:
    """One option, as a text.

    Attributes:
        name: as the command line has it, without the dashes in front.
        text: its value; None for a switch.
        origin: where it is from: the name of a file or of a variable, or "command line".
    """

    name: str
    text: str | None
    origin: str

    @property
    def word(self) -> str:
        """What a command line has for it."""
        return f"--{self.name}" if self.text is None else f"--{self.name}={self.text}"

    def __str__(self) -> str:
        shown = _SECRET_OF_URL.sub("//***@", self.word.replace("=", " ", 1))
        return f"{shown} ({self.origin})"


@dataclass(frozen=True)
class GivenOptions:
    """All that was given.

    Attributes:
        options: those that are known, the ones that count less first.
        rest: words of the command line that are none of these.
    """

    options: tuple[GivenOption, ...]
    rest: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """One command line that has all of it."""
        return [*(given.word for given in self.options), *self.rest]

    def __str__(self) -> str:
        return ", ".join(map(str, self.options))

    def traced(self, mistake: str) -> str:
        """A message about options, with where those are from that no command line gave."""
        told = {
            f"--{given.name} is from {given.origin}": None
            for given in self.options
            if given.origin != _COMMAND_LINE and _names(mistake, given.name)
        }
        return f"{mistake} ({'; '.join(told)})" if told else mistake


def gather(arguments: Sequence[str], environment: Mapping[str, str]) -> GivenOptions:
    """All that was given.

    Args:
        arguments: the command line; of its files of --config one may be the server's own.
        environment: variables, of which those with the prefix are options.

    Raises:
        ConfigurationError: the environment or the file has an unknown name, or a value that is not
            allowed. What is wrong on the command line is told when that is parsed.
    """
    options = {described.name: described for described in server_options()}
    own, rest = _of_command_line(arguments, options)
    if not {"-h", "--help"}.isdisjoint(rest):
        return GivenOptions((), tuple(rest))
    variables = _of_environment(environment, options)
    # Both, so that neither is taken for a graph.
    files = [file for texts in (own, variables) if (file := _take_server_file(texts, options))]
    # Those that count less first.
    levels = [(variables, ""), (own, _COMMAND_LINE)]
    if files:
        path, table = files[0]
        levels.insert(0, (_of_file(path, table, options), path))
    found: dict[str, list[GivenOption]] = {}
    for texts, origin in levels:
        for name, given in texts.items():
            described = options[name]
            before = found.get(name, []) if described.is_repeated else []
            found[name] = [*before, *_given(described, given, origin or _variable(name))]
    return GivenOptions(tuple(one for given in found.values() for one in given), tuple(rest))


def _given(described: Option, texts: Sequence[str], origin: str) -> Iterator[GivenOption]:
    name = dashed(described.name)
    if not described.is_switch:
        yield from (GivenOption(name, text, origin) for text in texts)
    elif _is_true(f"--{name}", texts[-1]):
        yield GivenOption(name, None, origin)


def _is_true(name: str, text: str) -> bool:
    if text.lower() not in (*_TRUE, *_FALSE):
        raise ConfigurationError(f"{name} takes true or false, got {shown(text)}")
    return text.lower() in _TRUE


def _of_command_line(
    arguments: Sequence[str], options: Mapping[str, Option]
) -> tuple[_Texts, list[str]]:
    """The texts of known options by name, and the words that are none."""
    parser = Parser(prog=PROGRAM, add_help=False)
    for described in options.values():
        spellings = [f"--{dashed(name)}" for name in (described.name, *described.aliases)]
        spellings += [f"-{described.short}"] if described.short else []
        # Given alone, a switch is on.
        value: dict[str, Any] = {"nargs": "?", "const": _TRUE[0]} if described.is_switch else {}
        parser.add_argument(
            *spellings, dest=described.name, action="append", default=argparse.SUPPRESS, **value
        )
    known, rest = parser.parse_known_args(parser.spelled(arguments))
    return vars(known), rest


def _variable(name: str) -> str:
    return f"{PREFIX}{name.upper()}"


def _of_environment(environment: Mapping[str, str], options: Mapping[str, Option]) -> _Texts:
    """The texts of options by name; a variable that is empty is not set."""
    names = {_variable(name): name for name in options}
    found: _Texts = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX) or not text or variable in OTHER_VARIABLES:
            continue
        hint = _KUBERNETES_HINT if _is_of_kubernetes(variable, text) else ""
        if variable not in names:
            known = (*names, *OTHER_VARIABLES)
            raise ConfigurationError(
                f"the environment has {variable}, which is no option of the service"
                f"{hint or closest_name_hint(variable.upper(), known)}"
            )
        described = options[names[variable]]
        try:
            if described.is_switch:
                _is_true(variable, text)
            texts = text.splitlines() if described.is_repeated else [text]
            for one in texts:
                described.kind(one)
        except argparse.ArgumentTypeError as error:
            raise ConfigurationError(f"{variable}: {error}{hint}") from error
        found[described.name] = texts
    return found


def _is_of_kubernetes(variable: str, text: str) -> bool:
    return text.startswith("tcp://") or _OF_KUBERNETES.match(variable) is not None


def _take_server_file(
    texts: _Texts, options: Mapping[str, Option]
) -> tuple[str, Mapping[str, Any]] | None:
    """The server's own file among those of --config, which then has the others."""
    given = [(path, server_table(path, options)) for path in texts.get("config", ())]
    files = [(path, table) for path, table in given if table is not None]
    if len(files) > 1:
        raise ConfigurationError(
            f"--config: {files[0][0]} and {files[1][0]} both have the service's options; give one"
        )
    graphs = [path for path, table in given if table is None]
    if graphs:
        texts["config"] = graphs
    else:
        texts.pop("config", None)
    return files[0] if files else None


def _of_file(path: str, table: Mapping[str, Any], options: Mapping[str, Option]) -> _Texts:
    texts = texts_of_file(path, table, options)
    if any(server_table(graph, options) is not None for graph in texts.get("config", ())):
        raise ConfigurationError(
            f"{path}: config: names another file with the service's options; it is for the graph"
        )
    return texts


def _names(mistake: str, name: str) -> bool:
    """Whether a message has an option's name, with dashes in front or as a field of settings."""
    spellings = [f"--{name}", *([name.replace("-", "_")] if "-" in name else [])]
    return any(re.search(rf"(?<![\w-]){one}(?![\w-])", mistake) for one in spellings)
