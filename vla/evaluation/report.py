"""Result tables on the terminal and as a self-contained HTML page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment

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


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 1.5rem auto;
  padding: 0 1rem; color: #222; overflow-wrap: anywhere }
h1 { font-size: 1.6rem } h2 { font-size: 1.25rem; margin-top: 2rem }
.table { overflow-x: auto }
table { border-collapse: collapse; margin: .5rem 0; overflow-wrap: normal }
td, th { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right }
td.text, th.text { text-align: left }
img { max-width: 100%; height: auto; display: block }
code, pre { background: #f3f3f0; border-radius: 3px }
pre { padding: .8rem; white-space: pre-wrap }
.finding { border-left: .4rem solid #888; padding: .3rem .8rem; margin: .6rem 0;
  background: #f7f7f5 }
.error { border-color: #c22 } .warning { border-color: #d90 } .note { border-color: #27c }
.ok { border-color: #282 }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .6rem }
.grid img { width: 100% }
.frames { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr)); gap: .4rem }
figure { margin: 0 } figure img { width: 100% }
figcaption { font-size: .8rem; color: #555 }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem }
</style></head><body><h1>{{ title }}</h1>
{% macro table(rows) %}<div class="table"><table><tr>
{% for name in rows[0] %}<th{{ " class=text" if name in texts }}>{{ name }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>
{% for name, value in row.items() %}<td{{ " class=text" if name in texts }}>{{ value }}</td>
{% endfor %}</tr>{% endfor %}</table></div>{% endmacro %}
{% for p in intro %}<p>{{ p }}</p>{% endfor %}
{% if rows %}{{ table(rows) }}{% endif %}
{% for s in sections %}<h2>{{ s.title }}</h2>{% if s.text %}<p>{{ s.text }}</p>{% endif %}
{% for f in s.findings %}<div class="finding {{ f.level }}"><b>{{ f.level }}: {{ f.name }}</b><br>
{{ f.text }}{% if f.affected %}
<details><summary>{{ f.affected|length }} affected</summary>{{ f.affected|join(", ") }}</details>
{% endif %}</div>{% endfor %}
{% if s.rows %}{{ table(s.rows) }}{% endif %}
{% if s.pre %}<pre>{{ s.pre }}</pre>{% endif %}
{% if s.image %}<img alt="{{ s.title }}" src="{{ s.image }}">{% endif %}
{% if s.charts %}<div class="grid">
{% for name, image in s.charts %}<img alt="{{ name }}" src="{{ image }}">
{% endfor %}</div>{% endif %}
{% for name, frames in s.frames %}<h3>{{ name }}</h3><div class="frames">
{% for label, image in frames %}<figure><img alt="{{ label }}" src="{{ image }}">
<figcaption>{{ label }}</figcaption></figure>{% endfor %}</div>{% endfor %}
{% endfor %}</body></html>"""
_TEXTS = ("policy", "task", "dim", "instruction", "")  # columns that are aligned to the left


def data_url(image: bytes, kind: str = "png") -> str:
    """An encoded image as an address that contains it."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def section(
    title: str,
    text: str,
    image: bytes | None = None,
    kind: str = "png",
    pre: str = "",
    **parts: Any,
) -> dict[str, Any]:
    """One section of the page.

    Args:
        image, kind: an encoded image and its file type.
        pre: preformatted text.
        parts: further content: ``rows`` (a table), ``findings`` (mappings with level, name, text
            and affected), ``charts`` (pairs of name and ``data_url``), ``frames`` (pairs of a
            heading and such pairs).
    """
    url = data_url(image, kind) if image else ""
    return {"title": title, "text": text, "pre": pre, "image": url, **parts}


def write_html(
    path: Path,
    title: str,
    intro: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    sections: Sequence[Mapping[str, Any]],
) -> Path:
    """Write one HTML file without external references; it is complete or not written.

    ``rows``: a table before the sections, or empty.
    """
    page = (
        Environment(autoescape=True)
        .from_string(_PAGE)
        .render(title=title, intro=intro, rows=rows, sections=sections, texts=_TEXTS)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(page, encoding="utf-8")
    return temporary.replace(path)
