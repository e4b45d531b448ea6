"""The page of a diagnosis: terminal, HTML or JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from vla.diagnose.checks import diagnose
from vla.diagnose.lines import EXIT_CODES, Line
from vla.diagnose.subject import open_subject
from vla.evaluation.report import section, write_html
from vla.evaluation.rollout import open_benchmark
from vla.utils.tables import terminal_width

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "dim"}
_INDENT = 5  # columns of a line's label; continued lines begin below the text
_WIDTH = 100  # columns of the lines in a pipe or file


def run_diagnose(
    path: Path,
    data: Path | None,
    benchmark: Mapping[str, Any],
    robot: str | None,
    limit: int,
    episodes: int,
    as_json: bool,
    html: Path | None,
) -> int:
    """``vla diagnose``: print the page; the exit code is 0 (ok), 1 (warn) or 2 (fail).

    The check that runs is shown on stderr.
    """
    errors = Console(stderr=True)
    console = Console(width=terminal_width() or _WIDTH)
    subject = open_subject(path, data, robot)
    if benchmark:  # an unknown one fails before the other checks
        open_benchmark(benchmark, subject.policy.spec.cameras)
    title = f"{subject.folder} on {subject.data}"
    lines: list[Line] = []
    if not as_json:
        console.print(Text(f"vla diagnose: {title}"), soft_wrap=True)
    with _announced(errors) as announce:
        for line in diagnose(subject, benchmark, limit, episodes, announce):
            lines.append(line)
            if not as_json:
                _print(console, line)
    code = max((EXIT_CODES[line.verdict] for line in lines), default=0)
    if as_json:
        report = {
            "policy": str(subject.folder),
            "data": str(subject.data),
            "faults": sorted({line.fault for line in lines if line.fault}),
            "lines": [asdict(line) for line in lines],
        }
        print(json.dumps(report, indent=1, ensure_ascii=False))
    else:
        console.print(Text(_conclusion(lines)))
    if html is not None:
        _write_page(html, title, lines)
        errors.print(f"page: {html}", markup=False, highlight=False)
    return code


@contextmanager
def _announced(console: Console) -> Iterator[Callable[[str], None]]:
    """A function that shows the name of a check: in place on a terminal, else as a line."""
    if not console.is_terminal:
        yield lambda check: console.print(f"checking {check}", markup=False, highlight=False)
        return
    with console.status("loading", spinner="line") as status:
        yield lambda check: status.update(f"checking {escape(check)}")


def _print(console: Console, line: Line) -> None:
    text = Text.assemble((line.check, "bold"), f": {line.finding}")
    if line.fix:
        text.append(f"\nfix: {line.fix}")
    table = Table.grid()
    table.add_column(width=_INDENT)
    table.add_column(overflow="fold")
    table.add_row(Text(line.label, _COLOURS[line.label]), text)
    console.print(table)


def _conclusion(lines: Sequence[Line]) -> str:
    counts = Counter(line.label for line in lines)
    verdicts = ", ".join(f"{counts[label]} {label}" for label in ("fail", "warn", "ok"))
    skipped = f", {counts['skip']} not judged" if counts["skip"] else ""
    faults = sorted({line.fault for line in lines if line.fault})
    named = f"; likely faults: {', '.join(faults)}" if faults else ""
    return f"{verdicts}{skipped}{named}"


def _write_page(path: Path, title: str, lines: Sequence[Line]) -> None:
    order = sorted(lines, key=lambda line: -EXIT_CODES[line.verdict])
    rows = [
        {"check": line.check, "verdict": line.label, "fault": line.fault or "-"} for line in order
    ]
    sections = [
        section(f"{line.label.upper()}: {line.check}", line.finding, pre=line.fix) for line in order
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_html(path, f"vla diagnose: {title}", [_conclusion(lines)], rows, sections)
