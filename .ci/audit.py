"""Asks pip-audit whether a pinned version of constraints.txt has a known vulnerability.

Exit codes: 0 none is known, or no service could be asked, which is told in one line; 1 some are
known; 2 pip-audit itself failed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

_CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
# Without pip, which would resolve and install what is pinned already; torch's local build has the
# same version there as PyPI's.
_COMMAND = (
    *(sys.executable, "-m", "pip_audit", "--requirement", str(_CONSTRAINTS), "--no-deps"),
    *("--disable-pip", "--progress-spinner", "off", "--format", "json"),
)
_LIMIT_S = 120
# How pip-audit and requests tell that the vulnerability service gave no answer.
_NO_ANSWER = re.compile(
    r"Could not connect|ConnectionError|Timeout|HTTPError|RetryError|Max retries"
)


def judge(report: dict[str, Any]) -> tuple[list[str], int]:
    """What to tell of pip-audit's report, and the exit code.

    Args:
        report: its JSON document. An entry has "vulns", or "skip_reason" if nothing was found out.
    """
    entries = report["dependencies"]
    findings = [
        f"audit: {entry['name']} {entry['version']}: {found['id']}, fixed in "
        f"{', '.join(found['fix_versions']) or 'no version yet'}"
        for entry in entries
        for found in entry.get("vulns", ())
    ]
    skipped = [entry["name"] for entry in entries if "skip_reason" in entry]
    asked = len(entries) - len(skipped)
    if not asked:
        return [_unreachable("it knows none of the pinned packages")], 0
    missing = f"; not known there: {', '.join(skipped)}" if skipped else ""
    count = len(findings) or "no"
    return [*findings, f"audit: {count} known vulnerabilities in {asked} packages{missing}"], int(
        bool(findings)
    )


def main() -> int:
    """Run pip-audit and tell what it found."""
    try:
        done = subprocess.run(  # noqa: S603 (fixed arguments)
            _COMMAND, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        _tell(_unreachable(f"no answer within {_LIMIT_S} s"))
        return 0
    try:
        report = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        if _NO_ANSWER.search(done.stderr):
            _tell(_unreachable(last[:200]))
            return 0
        sys.stderr.write(f"audit: pip-audit failed: {last}\n")
        return 2
    lines, code = judge(report)
    _tell(*lines)
    return code


def _tell(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")


def _unreachable(reason: str) -> str:
    return f"audit: skipped, PyPI's vulnerability service could not be asked ({reason})"


if __name__ == "__main__":
    sys.exit(main())
