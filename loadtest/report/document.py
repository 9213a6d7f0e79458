"""report.md and the plots of a measured folder, made from the raw files alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from loadtest.errors import LoadTestError
from loadtest.records import raw_files
from loadtest.records.run import Run

REPORT_FILE = "report.md"
TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Page:
    """How the report of one kind of run is made.

    Attributes:
        title: its heading.
        template: file below a folder of templates.
        values: what the template shows; draws the plots into the folder, too.
        terminal: what a terminal shows at the end of a run.
        templates: the folder.
    """

    title: str
    template: str
    values: Callable[[Run, Path], Mapping[str, Any]]
    terminal: Callable[[Run], str]
    templates: Path = TEMPLATES


def build(folder: Path, pages: Mapping[str, Page]) -> Run:
    """Read a measured folder and write its report.md and plots.

    Returns:
        What the raw files hold.

    Raises:
        LoadTestError: the raw files are missing or damaged, or the folder is not writable.
    """
    run = raw_files.read(folder)
    if (page := pages.get(run.kind)) is None:
        raise LoadTestError(
            f"{str(folder)!r} holds a run of {run.kind!r}; this reports {', '.join(pages)}"
        )
    with raw_files.one_line_errors(folder):
        try:
            values = page.values(run, folder)
        except KeyError as error:
            raise LoadTestError(
                f"the raw files in {str(folder)!r} are damaged: KeyError: {error}"
            ) from error
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader([page.templates, TEMPLATES]),
            undefined=jinja2.StrictUndefined,
            autoescape=jinja2.select_autoescape(),
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        text = environment.get_template(page.template).render(run=run, title=page.title, **values)
        (folder / REPORT_FILE).write_text(text, encoding="utf-8")
    return run
