"""Tables, curves and the self-contained HTML page."""

from __future__ import annotations

import base64
import csv
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment
from rich.console import Console
from rich.table import Table

from vla.evaluate import SEED, Result, evaluate, summary


def table_rows(results: Mapping[str, Sequence[Result]]) -> list[dict[str, str]]:
    """One printable row per policy and skill."""
    rows = []
    for policy, episodes in results.items():
        for skill, s in summary(episodes).items():
            rows.append({
                "policy": policy, "skill": skill, "success": f"{100 * s['success']:.1f} %",
                "95 % interval": f"{100 * s['low']:.1f} to {100 * s['high']:.1f}", "episodes": str(s["n"]),
                "wrong object": f"{100 * s['wrong_object']:.1f} %", "said done rightly": f"{100 * s['terminated_rightly']:.0f} %",
                "steps": f"{s['steps']:.1f}",
            })  # fmt: skip
    return rows


def print_table(rows: Sequence[Mapping[str, str]], title: str) -> None:
    """A table on the terminal."""
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name, justify="left" if name in ("policy", "skill") else "right")
    for row in rows:
        table.add_row(*row.values())
    Console(width=120).print(table)


def default_environment(contract: Any) -> tuple[dict[str, Any], list[str]]:
    """Options of the tabletop a policy was trained on (from its contract), and its skills."""
    source = contract.environment
    if source.get("name") != "tabletop":
        return {}, []
    options = {
        "scene": dict(source["scene"]),
        "cameras": list(contract.cameras),
        "size": source["size"],
        "layout": source["layout"],
    }
    return options, list(source["scene"]["skills"])


def evaluate_and_show(
    policy_dir: Path, env_id: str, skills: list[str], episodes: int, seed: int, out: Path | None, batch: int, overrides: list[str], robot: str | None = None,
    against: Path | None = None,
) -> None:  # fmt: skip
    """``vla eval``: load, roll out, print the table, write results, sheet and animation; against: another policy's results of the same episodes."""
    from omegaconf import OmegaConf

    from vla.film import save_films
    from vla.policy import VLAPolicy
    from vla.suites import averages, mcnemar, read_results

    theirs = read_results(against) if against else None
    policy = VLAPolicy.load(policy_dir).robot(robot)
    options, known = default_environment(policy.contract) if env_id == "vla/Tabletop-v0" else ({}, [])
    merged = OmegaConf.merge(OmegaConf.create(options), OmegaConf.from_dotlist(overrides))
    env: dict[str, Any] = OmegaConf.to_container(merged)  # type: ignore[assignment]
    results, films = evaluate(
        policy, env_id, env, episodes, skills or known, out / "results.json" if out else None, batch, 12 if out else 0, seed
    )
    print_table(table_rows({str(policy_dir): results}), f"{env_id}, seeds from {seed}")
    for suite, share in averages(results).items():
        Console().print(f"{suite}: {100 * share:.1f} % on average over its columns")
    if theirs is not None:
        m = mcnemar(results, theirs)
        Console().print(
            f"paired with {against}: {m['only_ours']} episodes won only here, {m['only_theirs']} only there, p = {m['p']:.3g} (McNemar, exact)"
        )
    if out:
        for path in save_films(films, results, out / "rollouts"):
            Console().print(f"wrote {path}")


def read_curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """All logged series of a run (its folder, or one CSV file), by name, as (step, value). Every start of a run has a file of its own; what it logged again counts."""
    series: dict[str, dict[int, float]] = {}
    for path in [run] if run.is_file() else sorted(run.glob("csv*/metrics.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if name not in ("step", "epoch") and value:
                        series.setdefault(name, {})[int(row["step"])] = float(value)
    return {name: sorted(points.items()) for name, points in series.items()}


def curves_table(run: Path) -> list[dict[str, str]]:
    """All logged series of a run (its folder, or one CSV file), a row a step, six digits."""
    table = {name: dict(points) for name, points in read_curves(run).items()}
    steps = sorted({s for points in table.values() for s in points})
    return [{"step": str(s)} | {n: f"{points[s]:.6g}" if s in points else "" for n, points in table.items()} for s in steps]


def plot_curves(runs: Mapping[str, Path], out: Path | None = None) -> bytes:
    """Losses, accuracy and errors of several runs as one PNG figure (also written to ``out``)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = {
        "robot loss": ["loss/robot"], "web loss": ["loss/web"], "token accuracy": ["action_token_accuracy", "web_token_accuracy"],
        "L1 error of the arm (cm)": ["l1/dx", "l1/dy", "l1/dz"],
    }  # fmt: skip
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.2), constrained_layout=True)
    for axis, (title, names) in zip(axes, panels.items(), strict=True):
        for run_name, run in runs.items():
            curves = read_curves(run)
            for name in names:
                for stage, style in (("train", {"lw": 0.9, "alpha": 0.55}), ("val", {"lw": 1.8})):
                    points = curves.get(f"{stage}/{name}", [])
                    if points:
                        x, y = zip(*points, strict=True)
                        factor = 100 if name.startswith("l1/") else 1
                        label = f"{run_name} {name.split('/')[-1] if len(names) > 1 else ''}".strip() if stage == "val" else None
                        colour = f"C{(list(runs).index(run_name) * len(names) + names.index(name)) % 10}"
                        axis.plot(x, [factor * v for v in y], color=colour, label=label, **style)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        axis.spines[["top", "right"]].set_visible(False)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    plt.close(figure)
    if out is not None:
        out.write_bytes(buffer.getvalue())
    return buffer.getvalue()


_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title><style>
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}img{max-width:100%}
code{background:#f3f3f0;padding:.1rem .3rem;border-radius:3px}pre{background:#f3f3f0;padding:.8rem;overflow-x:auto}
</style></head><body><h1>{{ title }}</h1>
{% for p in intro %}<p>{{ p }}</p>{% endfor %}
<table><tr>{% for name in rows[0] %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for value in row.values() %}<td>{{ value }}</td>{% endfor %}</tr>{% endfor %}</table>
{% for s in sections %}<h2>{{ s.title }}</h2><p>{{ s.text }}</p>
{% if s.pre %}<pre>{{ s.pre }}</pre>{% endif %}
{% if s.image %}<img alt="{{ s.title }}" src="data:image/{{ s.kind }};base64,{{ s.image }}">{% endif %}{% endfor %}
</body></html>"""


def section(title: str, text: str, image: bytes | None = None, kind: str = "png", pre: str = "") -> dict[str, str]:
    """One part of the page."""
    return {"title": title, "text": text, "pre": pre, "kind": kind, "image": base64.b64encode(image).decode() if image else ""}


def write_html(
    path: Path, title: str, intro: Sequence[str], rows: Sequence[Mapping[str, str]], sections: Sequence[Mapping[str, str]]
) -> Path:
    """One file without any outside reference, written whole or not at all."""
    page = (
        Environment(autoescape=True)
        .from_string(_PAGE)
        .render(title=html.unescape(title), intro=intro, rows=rows, sections=sections)
    )
    temporary = path.with_suffix(".tmp")
    temporary.write_text(page, encoding="utf-8")
    return temporary.replace(path)


__all__ = ["SEED", "default_environment", "evaluate_and_show", "plot_curves", "print_table", "section", "table_rows", "write_html"]
