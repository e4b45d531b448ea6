"""The doctor's report: text, JSON, and one HTML page with plots and a contact sheet."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vla.doctor.checks import examine
from vla.doctor.findings import Finding, Summary
from vla.doctor.views import Patient, open_patient

_SHEET_EPISODES, _SHEET_FRAMES, _SIDE = 8, 8, 96


def ranges(patient: Patient, summary: Summary) -> list[dict[str, str]]:
    """One row an action dim, in robot units."""
    pooled = np.concatenate([v.actions for v in summary.views])
    rows = []
    for k, name in enumerate(patient.names):
        column = pooled[:, k][np.isfinite(pooled[:, k])]
        q01, q50, q99 = np.quantile(column, [0.01, 0.5, 0.99])
        figures = {"min": column.min(), "q01": q01, "median": q50, "q99": q99, "max": column.max(), "std": column.std()}
        rows.append({"dim": name, "": "decision" if name in patient.binary else "", **{n: f"{v:.4g}" for n, v in figures.items()}})
    return rows


def compare(patient: Patient, summary: Summary, policy_dir: Path) -> list[Finding]:
    """Whether a saved policy's statistics fit this data, dim by dim, before it is fine-tuned on it."""
    from vla.contract import Contract

    held = json.loads((policy_dir / "contract.json").read_text(encoding="utf-8"))
    contracts = {name: Contract.from_dict(c) for name, c in held["robots"].items()}
    contract = next((c for c in contracts.values() if c.action_space.names == patient.names), None)
    if contract is None:
        names = "; ".join(f"{n}: {', '.join(c.action_space.names)}" for n, c in contracts.items())
        return [
            Finding(
                "another robot", "note",
                f"{policy_dir} commands {names}; this data has {', '.join(patient.names)}: it is fine-tuned as a new robot, with statistics of its own",
            )
        ]  # fmt: skip
    statistics = contract.statistics.get("actions")
    if not statistics:
        return [Finding("no statistics", "warning", f"{policy_dir} was saved without action statistics; use normalise: bounds")]
    pooled = np.concatenate([v.actions for v in summary.views])
    q01, q99 = np.quantile(pooled, [0.01, 0.99], axis=0)
    findings = []
    for k, name in enumerate(contract.action_space.names):
        if name in patient.binary:
            continue
        low, high = statistics["q01"][k], statistics["q99"][k]
        width = max(high - low, 1e-9)
        outside = float(((pooled[:, k] < low - 0.05 * width) | (pooled[:, k] > high + 0.05 * width)).mean())
        narrow = (q99[k] - q01[k]) / width
        if outside > 0.05:
            findings.append(
                Finding(
                    "outside the policy's range",
                    "warning",
                    f"{name}: {100 * outside:.0f} % of rows lie outside the policy's {low:.4g} to {high:.4g}: with its statistics they would be clipped",
                    [name],
                )
            )
        elif narrow < 0.2:
            findings.append(
                Finding(
                    "a fraction of the policy's range",
                    "warning",
                    f"{name}: the data spans {100 * narrow:.0f} % of the policy's range: with its statistics few bins are left",
                    [name],
                )
            )
    return findings


def sheet(summary: Summary) -> bytes:
    """Some episodes' frames, a row each, evenly spaced in time."""
    views = [v for v in summary.views if v.cameras][:: max(1, len(summary.views) // _SHEET_EPISODES)][:_SHEET_EPISODES]
    rows = [(v, c) for v in views for c in v.cameras]
    canvas = Image.new("RGB", (_SHEET_FRAMES * (_SIDE + 2), max(1, len(rows)) * (_SIDE + 2)), "white")
    for y, (view, camera) in enumerate(rows):
        steps = np.unique(np.linspace(0, len(view.actions) - 1, _SHEET_FRAMES).round().astype(int)).tolist()
        for x, picture in enumerate(view.pictures(camera, steps)):
            canvas.paste(Image.fromarray(picture).resize((_SIDE, _SIDE)), (x * (_SIDE + 2), y * (_SIDE + 2)))
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def plots(patient: Patient, summary: Summary) -> bytes:
    """Histograms of every action dim, and the lengths of the episodes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    pooled = np.concatenate([v.actions for v in summary.views])
    count = len(patient.names) + 1
    columns = min(6, count)
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.4 * columns, 1.9 * rows), constrained_layout=True, squeeze=False)
    for axis, k in zip(axes.flat, range(count), strict=False):
        last = k == len(patient.names)
        values = np.array([len(v.actions) for v in summary.views]) if last else pooled[:, k][np.isfinite(pooled[:, k])]
        axis.hist(values, bins=40, color="C1" if last else "C0")
        axis.set_title("rows an episode" if last else patient.names[k], fontsize=8)
        axis.set_yticks([])
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right", "left"]].set_visible(False)
    for axis in list(axes.flat)[count:]:
        axis.set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    plt.close(figure)
    return buffer.getvalue()


def run_doctor(data: Path, overrides: list[str], policy: Path | None, as_json: bool, html: Path | None) -> int:
    """``vla doctor``: print findings; returns the exit code: 0 nothing but notes, 1 warnings, 2 errors."""
    from vla.config import build, override
    from vla.data.manifest import NAME

    source = None
    if not (data / NAME).is_file():
        asked = override({"source": {"name": "robot", "path": str(data), "skip_missing": True}}, overrides)
        source = build("source", asked["source"], "source")
    patient = open_patient(data, source)
    summary, findings = examine(patient)
    if policy is not None:
        findings += compare(patient, summary, policy)
    facts = {
        "data": patient.name, "episodes": len(summary.views), "rows": sum(len(v.actions) for v in summary.views),
        "instructions": len({v.instruction for v in summary.views}), "cameras": list(summary.views[0].cameras),
    }  # fmt: skip
    if as_json:
        print(
            json.dumps(
                {**facts, "findings": [asdict(f) for f in findings], "dims": ranges(patient, summary)}, indent=1, ensure_ascii=False
            )
        )
    else:
        _print(facts, findings, ranges(patient, summary))
    if html is not None:
        _write_page(html, facts, findings, patient, summary)
    return 2 if any(f.severity == "error" for f in findings) else 1 if any(f.severity == "warning" for f in findings) else 0


def _print(facts: dict[str, Any], findings: list[Finding], rows: list[dict[str, str]]) -> None:
    from rich.console import Console

    from vla.report import print_table

    console = Console()
    console.print(
        f"{facts['data']}: {facts['episodes']} episodes, {facts['rows']} rows, {facts['instructions']} instructions, cameras {', '.join(facts['cameras'])}"
    )
    print_table(rows, "actions, in robot units")
    colours = {"error": "red", "warning": "yellow", "note": "blue"}
    for f in findings:
        console.print(f"[{colours[f.severity]}]{f.severity}[/] {f.check}: {f.text}{_whom(f)}")
    if not findings:
        console.print("[green]nothing found[/]")


def _whom(finding: Finding) -> str:
    shown = [w for w in finding.who if w not in finding.text][:6]
    return f" ({', '.join(shown)}{', …' if len(finding.who) > 6 else ''})" if shown else ""


def _write_page(path: Path, facts: dict[str, Any], findings: list[Finding], patient: Patient, summary: Summary) -> None:
    from vla.report import section, write_html

    lines = "\n".join(f"{f.severity.upper():8} {f.check}: {f.text}{_whom(f)}" for f in findings) or "nothing found"
    told = Counter(v.instruction for v in summary.views).most_common(30)
    sections = [
        section("Findings", "Errors first.", pre=lines),
        section("Actions", "Every dim, pooled over all rows, and the episodes' lengths.", plots(patient, summary)),
        section("Frames", "One row an episode and camera; time runs to the right.", sheet(summary)),
        section("Instructions", "How many episodes have each.", pre="\n".join(f"{n:6}  {text}" for text, n in told)),
    ]
    intro = [
        f"{facts['episodes']} episodes, {facts['rows']} rows, {facts['instructions']} instructions, cameras {', '.join(facts['cameras'])}."
    ]
    write_html(path, f"vla doctor: {facts['data']}", intro, ranges(patient, summary), sections)
