"""The table of verdicts in ``configs/README.md``, from ``configs/zoo.csv``."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from vla.config.registry import configs_dir
from vla.utils.io import write_text

COLUMNS = ("kind", "family", "verdict", "reason")
VERDICTS = ("right", "right, separate sequences", "refused")
Row = dict[str, str]
_TITLES = {
    "causal": "Causal language models",
    "seq2seq": "Encoder-decoder language models",
    "vlm": "Whole vision-language models",
    "timm": "timm vision encoders",
}
_HEADING = "## Model families"
_INTRODUCTION = """\
Written by `vla zoo --prove --all`. A small random model of each family passes the start-up proof,
or the family is refused with the first check that failed. `vla train` runs the same proof for its
decoder. *Separate sequences*: each text has its own sequence, which is right but slower.
"""


def table_file() -> Path:
    """``configs/zoo.csv``."""
    return configs_dir() / "zoo.csv"


def read_verdicts() -> list[Row]:
    """Rows of the table; empty without a file."""
    if not table_file().is_file():
        return []
    with table_file().open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def update_table(rows: Iterable[Row]) -> None:
    """Replace the rows of these families in the file, and the section of the page."""
    known = {(r["kind"], r["family"]): r for r in [*read_verdicts(), *rows]}
    kept = [known[key] for key in sorted(known, key=lambda k: ([*_TITLES].index(k[0]), k[1]))]
    lines = [",".join(COLUMNS)]
    for row in kept:
        lines.append(",".join(f'"{row[c].replace(chr(34), chr(39))}"' for c in COLUMNS))
    write_text(table_file(), "\n".join(lines) + "\n")
    page = configs_dir() / "README.md"
    before = page.read_text(encoding="utf-8").partition(f"\n{_HEADING}\n")[0].rstrip()
    write_text(page, "\n".join([before, "", *table_section(kept)]).rstrip() + "\n")


def table_section(rows: list[Row]) -> list[str]:
    """Lines of the section: counts for each kind, and a collapsed table."""
    if not rows:
        return []
    lines = [_HEADING, "", *_INTRODUCTION.split("\n")]
    lines += [
        "| kind | families | right | right, separate sequences | refused |",
        "|---|---|---|---|---|",
    ]
    groups = {kind: [r for r in rows if r["kind"] == kind] for kind in _TITLES}
    for kind, own in groups.items():
        counts = [sum(r["verdict"] == v for r in own) for v in VERDICTS]
        if own:
            lines.append(f"| {_TITLES[kind]} | {len(own)} | {' | '.join(map(str, counts))} |")
    for kind, own in groups.items():
        if own:
            lines += ["", f"<details><summary>{_TITLES[kind]}</summary>", ""]
            lines += ["| family | verdict | reason |", "|---|---|---|"]
            lines += [f"| {r['family']} | {r['verdict']} | {_cell(r['reason'])} |" for r in own]
            lines += ["", "</details>"]
    return lines


def _cell(text: str) -> str:
    for old, new in (("|", "\\|"), ("<", "&lt;"), ("*", "\\*"), ("_", "\\_")):
        text = text.replace(old, new)
    return text
