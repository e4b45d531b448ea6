"""What ``vla demo`` wrote, copied here, and the README's table. Usage: python experiments/demo/report.py [runs/demo]"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from vla.evaluate import Result
from vla.report import curves_table, table_rows
from vla.tables import markdown, put, write_table

HERE = Path(__file__).parent
POLICIES = {"token": "token, with plan", "regression": "regression, no plan", "untrained": "untrained"}


def tables() -> dict[str, str]:
    """The README's table, of the episodes in ``eval_*.json``."""
    episodes = {shown: json.loads((HERE / f"eval_{name}.json").read_text())["episodes"] for name, shown in POLICIES.items()}
    rows = table_rows({shown: [Result(**e) for e in found] for shown, found in episodes.items()})
    return {"success": markdown(list(rows[0]), [list(r.values()) for r in rows])}


def main() -> None:
    """Copy and put."""
    runs = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/demo")
    for name in POLICIES:
        shutil.copy(runs / f"eval_{name}.json", HERE)
    for name in ("web", "token", "regression"):
        write_table(HERE / f"metrics_{name}.csv", curves_table(runs / name))
    for name in ("curves.png", "rollouts.png"):
        shutil.copy(runs / name, HERE)
    for name, text in tables().items():
        put(HERE / "README.md", name, text)


if __name__ == "__main__":
    main()
