"""The reports of a measured folder, made from the raw files alone.

report.md with its pictures is for terminals and repositories, report.html is one file for a
browser, summary.json is for programs: docs/summary.schema.json describes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from loadtest.errors import LoadTestError, UsageError
from loadtest.records import raw_files
from loadtest.records.run import Run

REPORT_FILE = "report.md"
HTML_FILE = "report.html"
SUMMARY_FILE = "summary.json"
TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Page:
    """How the report of one kind of run is made.

    Attributes:
        title: its heading.
        template: file below a folder of templates.
        values: what the templates show; draws the plots into the folder, too.
        terminal: what a terminal shows at the end of a run.
        templates: the folder.
        html: template of the page for a browser, or "" where there is none.
        summary: makes the summary for programs of the same values; None where there is none.
    """

    title: str
    template: str
    values: Callable[[Run, Path], Mapping[str, Any]]
    terminal: Callable[[Run], str]
    templates: Path = TEMPLATES
    html: str = ""
    summary: Callable[[Run, Mapping[str, Any]], Mapping[str, Any]] | None = None


def build(folder: Path, pages: Mapping[str, Page]) -> Run:
    """Read a measured folder and write its reports and plots.

    Returns:
        What the raw files hold.

    Raises:
        LoadTestError: the raw files are missing or damaged, or the folder is not writable.
    """
    run = raw_files.read(folder)
    if (page := pages.get(run.kind)) is None:
        raise UsageError(
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
        environment.filters["coded"] = coded
        for name, template in ((REPORT_FILE, page.template), (HTML_FILE, page.html)):
            if template:
                made = environment.get_template(template)
                text = made.render(run=run, title=page.title, **values)
                (folder / name).write_text(text, encoding="utf-8")
        if page.summary is not None:
            text = json.dumps(page.summary(run, values), indent=1) + "\n"
            (folder / SUMMARY_FILE).write_text(text, encoding="utf-8")
    return run


def coded(text: str) -> Markup:
    """A sentence for a page: backticks make code, and a number keeps its percent sign."""
    parts = str(text).replace("**", "").replace(" %", "\u00a0%").split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
        for index, part in enumerate(parts)
    )
