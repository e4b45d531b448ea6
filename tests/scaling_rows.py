"""Rows of a ladder that follow a known law."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla.experiments.scaling.fit import Law
from vla.experiments.scaling.ladder import COLUMNS


def made_rows(amounts: Sequence[int] = ()) -> list[dict[str, str]]:
    """Runs that follow a law: six sizes, three amounts of data, two seeds of the smaller ones.

    ``amounts``: demonstrations of ten tasks, one number for each amount of data.
    """
    law, rng, rows = Law(0.2, 30.0, 20.0, 0.4, 0.45), np.random.default_rng(0), []
    for k, n in enumerate(np.geomspace(1e5, 8e6, 6)):
        for m, d in enumerate((2e4, 6e4, 2e5)):
            for seed in (0, 1) if k < 3 else (0,):
                loss = float(law(n, d)) * float(np.exp(rng.normal(0, 0.004)))
                common = dict.fromkeys(COLUMNS, "") | {
                    "run": f"run-{k}-{m}-s{seed}",
                    "size": str(k),
                    "axis": "data",
                    "data": str(m),
                    "seed": str(seed),
                    "parameters": str(n * 1.2),
                    "parameters_without_embeddings": str(n),
                    "flops": str(8 * n * d),
                    "robot_samples": str(d),
                    "demonstrations": str(amounts[m]) if amounts else "",
                    "tasks": "10" if amounts else "",
                    "val_loss_robot": str(loss),
                }
                for task in ("pick", "near"):
                    wins = rng.binomial(50, 1 / (1 + np.exp(8 * (loss - 0.7))))
                    rows.append(common | {"task": task, "episodes": "50", "wins": str(wins)})
    return rows
