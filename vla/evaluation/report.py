"""Result tables on the terminal and as a self-contained HTML page."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment
from rich.console import Console
from rich.table import Table

from vla.benchmarks.base import EpisodeResult
from vla.evaluation.statistics import summary


def table_rows(results: Mapping[str, Sequence[EpisodeResult]]) -> list[dict[str, str]]:
    """One printable row per policy and task."""
    rows = []
    for policy, episodes in results.items():
        for task, s in summary(episodes).items():
            row = {
                "policy": policy,
                "task": task,
                "success": f"{100 * s['success']:.1f} %",
                "95 % interval": f"{100 * s['low']:.1f} to {100 * s['high']:.1f}",
                "episodes": str(s["n"]),
                "steps": f"{s['steps']:.1f}",
            }
            metrics = [m for m in s if m not in ("n", "success", "low", "high", "steps")]
            rows.append(row | {m.replace("_", " "): f"{s[m]:.3g}" for m in metrics})
    return rows


def print_table(rows: Sequence[Mapping[str, str]], title: str) -> None:
    """A table on the terminal."""
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name, justify="left" if name in ("policy", "task") else "right")
    for row in rows:
        table.add_row(*row.values())
    Console(width=max(120, Console().width)).print(table)  # readable in log files too


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
  color: #222 }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child, td:nth-child(2), th:nth-child(2) { text-align: left }
img { max-width: 100% }
code { background: #f3f3f0; padding: .1rem .3rem; border-radius: 3px }
pre { background: #f3f3f0; padding: .8rem; overflow-x: auto }
</style></head><body><h1>{{ title }}</h1>
{% for p in intro %}<p>{{ p }}</p>{% endfor %}
<table><tr>{% for name in rows[0] %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>
{% for value in row.values() %}<td>{{ value }}</td>{% endfor %}
</tr>{% endfor %}</table>
{% for s in sections %}<h2>{{ s.title }}</h2><p>{{ s.text }}</p>
{% if s.pre %}<pre>{{ s.pre }}</pre>{% endif %}
{% if s.image %}
<img alt="{{ s.title }}" src="data:image/{{ s.kind }};base64,{{ s.image }}">
{% endif %}{% endfor %}
</body></html>"""


def section(
    title: str, text: str, image: bytes | None = None, kind: str = "png", pre: str = ""
) -> dict[str, str]:
    """One section of the page; ``kind`` is the image's file type, ``pre`` preformatted text."""
    return {
        "title": title,
        "text": text,
        "pre": pre,
        "kind": kind,
        "image": base64.b64encode(image).decode() if image else "",
    }


def write_html(
    path: Path,
    title: str,
    intro: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    sections: Sequence[Mapping[str, str]],
) -> Path:
    """Write one HTML file without external references; it is complete or not written."""
    page = (
        Environment(autoescape=True)
        .from_string(_PAGE)
        .render(title=html.unescape(title), intro=intro, rows=rows, sections=sections)
    )
    temporary = path.with_suffix(".tmp")
    temporary.write_text(page, encoding="utf-8")
    return temporary.replace(path)
