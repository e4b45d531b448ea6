"""The doctor's report: text, JSON, or an HTML page."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from vla.config import build, override
from vla.data.manifest import NAME
from vla.data.pack import source_name
from vla.doctor.checks import examine
from vla.doctor.findings import Finding, Summary
from vla.doctor.labels import task_counts
from vla.doctor.plots import frames, histograms, ranges
from vla.doctor.policy_fit import compare
from vla.doctor.views import DatasetView, open_dataset
from vla.errors import DataError
from vla.evaluation.report import section, write_html
from vla.utils.tables import print_table, terminal_width
from vla.utils.text import count

_EXIT_CODES = {"error": 2, "warning": 1, "note": 0}
_COLOURS = {"error": "red", "warning": "yellow", "note": "blue"}
_LISTED = 6  # affected episodes or dimensions that the text names


def run_doctor(
    data: Path, overrides: list[str], policy: Path | None, as_json: bool, html: Path | None
) -> int:
    """``vla doctor``: print findings; the exit code is 0 (notes at most), 1 (warnings), 2 (errors).

    Args:
        overrides: changes of the mapping for data that is not packed, ``source.mapping.key=value``.
        policy: a saved policy whose statistics are compared with the data.
    """
    source = None
    if not (data / NAME).is_file():
        plain = override({"source": {"path": str(data), "skip_missing": True}}, overrides)
        options = plain["source"]
        if "name" not in options:
            options["name"] = source_name(data, options)
        if options["name"] == "web_data":
            raise DataError(
                f"{data}: images with texts; vla doctor examines robot data; `vla pack --skip-bad` "
                "lists bad samples of web data"
            )
        source = build("source", options, "source")
    dataset = open_dataset(data, source)
    summary, findings = examine(dataset)
    if policy is not None:
        findings += compare(dataset, summary, policy)
    facts = {
        "data": dataset.name,
        "episodes": len(summary.episodes),
        "rows": sum(len(e.actions) for e in summary.episodes),
        "instructions": len({text for e in summary.episodes for text in e.texts}),
        "cameras": list(summary.episodes[0].cameras) if summary.episodes else [],
    }
    table = ranges(dataset, summary)
    if as_json:
        report = {
            **facts,
            "tasks": [
                {"task": task, "train": train, "val": val}
                for task, train, val in task_counts(summary.episodes)
            ],
            "findings": [asdict(f) for f in findings],
            "dims": table,
        }
        print(json.dumps(report, indent=1, ensure_ascii=False))
    else:
        _print(facts, findings, table)
    if html is not None:
        _write_page(html, facts, findings, dataset, summary)
        if not as_json:
            print(f"page: {html.resolve()}")
    return max((_EXIT_CODES[f.severity] for f in findings), default=0)


def _headline(facts: dict[str, Any]) -> str:
    sizes = [
        count(facts["episodes"], "episode"),
        count(facts["rows"], "row"),
        count(facts["instructions"], "instruction"),
    ]
    return f"{', '.join(sizes)}; cameras: {', '.join(facts['cameras']) or 'none'}"


def _print(facts: dict[str, Any], findings: list[Finding], table: list[dict[str, str]]) -> None:
    console = Console(width=terminal_width() or 100_000, highlight=False)
    console.print(f"{facts['data']}: {_headline(facts)}", markup=False)
    print_table(table, "actions, in robot units")
    for f in findings:
        label = Text(f.severity, _COLOURS[f.severity])
        console.print(label.append(f" {f.check}: {f.text}{_affected(f)}", "default"))
    console.print(_verdict(findings), style="" if findings else "green")


def _verdict(findings: list[Finding]) -> str:
    """``2 errors, 1 warning, 3 notes``."""
    counts: Counter[str] = Counter(f.severity for f in findings)
    found = [count(counts[severity], severity) for severity in _EXIT_CODES if counts[severity]]
    return ", ".join(found) or "no defects found"


def _affected(finding: Finding) -> str:
    """The first affected episodes or dimensions that the text does not name."""
    listed = [w for w in finding.affected if w not in finding.text]
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return f" ({', '.join(listed[:_LISTED])}{more})" if listed else ""


def _write_page(
    path: Path,
    facts: dict[str, Any],
    findings: list[Finding],
    dataset: DatasetView,
    summary: Summary,
) -> None:
    """Write the page; findings come first, errors before warnings."""
    shown = [
        {
            "level": f.severity,
            "name": f.check,
            "text": f.text,
            "affected": [name for name in f.affected if name not in f.text],
        }
        for f in sorted(findings, key=lambda f: list(_EXIT_CODES).index(f.severity))
    ]
    sections = [section("Findings", f"{_verdict(findings)}.", findings=shown)]
    if any(e.cameras for e in summary.episodes):
        text = "Evenly spaced frames of some episodes, in order of time, for each camera."
        sections.append(section("Frames", text, frames=frames(summary)))
    if summary.episodes:
        text = "Number of rows by value, for each dimension that is not constant."
        sections.append(section("Actions", text, charts=histograms(dataset, summary)))
        text = "In robot units, over all rows."
        sections.append(section("Ranges of the actions", text, rows=ranges(dataset, summary)))
    tasks = [
        {"instruction": task, "training episodes": str(train), "validation episodes": str(val)}
        for task, train, val in task_counts(summary.episodes)
    ]
    sections.append(section("Instructions", "", rows=tasks))
    write_html(path, f"vla doctor: {facts['data']}", [f"{_headline(facts)}."], [], sections)
