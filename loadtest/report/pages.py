"""The kinds of runs that the load test reports."""

from __future__ import annotations

from loadtest.report import capacity_page, load_page, peers_page, runtime_page, tune_page

PAGES = {
    **load_page.PAGES,
    **capacity_page.PAGES,
    **tune_page.PAGES,
    **peers_page.PAGES,
    **runtime_page.PAGES,
}
