"""The doctor's report: text, JSON, or an HTML page."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vla.config import build, override
from vla.data.manifest import NAME
from vla.doctor.checks import examine
from vla.doctor.findings import Finding, Summary
from vla.doctor.plots import contact_sheet, histograms, ranges
from vla.doctor.policy_fit import compare
from vla.doctor.views import DatasetView, open_dataset
from vla.evaluation.report import print_table, section, write_html

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
        plain = {"source": {"name": "robot", "path": str(data), "skip_missing": True}}
        source = build("source", override(plain, overrides)["source"], "source")
    dataset = open_dataset(data, source)
    summary, findings = examine(dataset)
    if policy is not None:
        findings += compare(dataset, summary, policy)
    facts = {
        "data": dataset.name,
        "episodes": len(summary.episodes),
        "rows": sum(len(e.actions) for e in summary.episodes),
        "instructions": len({e.instruction for e in summary.episodes}),
        "cameras": list(summary.episodes[0].cameras),
    }
    table = ranges(dataset, summary)
    if as_json:
        report = {**facts, "findings": [asdict(f) for f in findings], "dims": table}
        print(json.dumps(report, indent=1, ensure_ascii=False))
    else:
        _print(facts, findings, table)
    if html is not None:
        _write_page(html, facts, findings, dataset, summary)
    return max((_EXIT_CODES[f.severity] for f in findings), default=0)


def _headline(facts: dict[str, Any]) -> str:
    return (
        f"{facts['episodes']} episodes, {facts['rows']} rows, "
        f"{facts['instructions']} instructions, cameras {', '.join(facts['cameras'])}"
    )


def _print(facts: dict[str, Any], findings: list[Finding], table: list[dict[str, str]]) -> None:
    from rich.console import Console

    console = Console()
    console.print(f"{facts['data']}: {_headline(facts)}")
    print_table(table, "actions, in robot units")
    for f in findings:
        label = f"[{_COLOURS[f.severity]}]{f.severity}[/] {f.check}"
        console.print(f"{label}: {f.text}{_affected(f)}")
    if not findings:
        console.print("[green]no defects found[/]")


def _affected(finding: Finding) -> str:
    """The first affected episodes or dimensions that the text does not name."""
    listed = [w for w in finding.affected if w not in finding.text][:_LISTED]
    more = ", …" if len(finding.affected) > _LISTED else ""
    return f" ({', '.join(listed)}{more})" if listed else ""


def _write_page(
    path: Path,
    facts: dict[str, Any],
    findings: list[Finding],
    dataset: DatasetView,
    summary: Summary,
) -> None:
    lines = [f"{f.severity.upper():8} {f.check}: {f.text}{_affected(f)}" for f in findings]
    counts = Counter(e.instruction for e in summary.episodes).most_common(30)
    sections = [
        section("Findings", "Errors first.", pre="\n".join(lines) or "no defects found"),
        section(
            "Actions",
            "Each dimension over all rows, and the lengths of the episodes.",
            histograms(dataset, summary),
        ),
        section(
            "Frames",
            "One row per episode and camera, in order of time.",
            contact_sheet(summary),
        ),
        section(
            "Instructions",
            "Number of episodes per instruction.",
            pre="\n".join(f"{n:6}  {text}" for text, n in counts),
        ),
    ]
    title = f"vla doctor: {facts['data']}"
    write_html(path, title, [f"{_headline(facts)}."], ranges(dataset, summary), sections)
