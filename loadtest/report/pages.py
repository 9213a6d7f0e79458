"""The kinds of runs that the load test reports."""

from __future__ import annotations

from loadtest.report import load_page, peers_page, runtime_page

PAGES = {**load_page.PAGES, **peers_page.PAGES, **runtime_page.PAGES}
