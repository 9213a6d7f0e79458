"""Figures as SVG that is part of a page: its fonts, and the colours of its theme.

matplotlib writes colours as values. Each value of `loadtest.report.style` becomes a CSS variable
of the page, which gives it one value in light and another one in the dark.
"""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree as ET

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from loadtest.report.style import MARK, THEME

_NAMES = {light: name for name, (light, _) in THEME.items()}
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_REFERENCE = re.compile(r"#([^)]+)")
# Fonts are the page's. Before matplotlib 3.11 one property has the font's size and names.
_FONT_NAMES = re.compile(r"font-family: [^;]*(?:; )?")
_FONT = re.compile(r"font: (?:\w+ )*([\d.]+px)[^;]*")
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_HREF = f"{{{_XLINK}}}href"


def inline_svg(figure: Figure, salt: str, description: str) -> Markup:
    """The figure as an element of a page.

    Args:
        figure: in the style of `loadtest.report.style`.
        salt: keeps its ids apart from those of other figures in the page.
        description: text for readers who cannot see the figure.

    Raises:
        KeyError: a colour that themes do not know.
    """
    text = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(text.getvalue())  # noqa: S314 (matplotlib wrote it)
    for own in ("width", "height", "version"):
        root.attrib.pop(own, None)
    for parent in (root, *root.findall(f"{{{_SVG}}}defs")):
        for child in parent.findall(f"{{{_SVG}}}metadata") + parent.findall(f"{{{_SVG}}}style"):
            parent.remove(child)
    used = {
        found[1]
        for element in root.iter()
        for name in ("clip-path", _HREF)
        if (found := _REFERENCE.search(element.get(name, "")))
    }
    for element in root.iter():
        own_id = element.attrib.pop("id", "")
        if own_id == MARK:
            element.set("class", MARK)
        elif own_id in used:
            element.set("id", own_id)
        if (style := element.get("style")) is not None:
            element.set("style", _themed(style))
    root.attrib.update({"role": "img", "aria-label": description})
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 (text in it is escaped)


def _themed(style: str) -> str:
    """A style with the page's fonts, and variables for colours."""
    style = _FONT.sub(r"font-size: \1", _FONT_NAMES.sub("", style))
    return _COLOUR.sub(lambda found: f"var(--{_NAMES[found[0]]})", style)
