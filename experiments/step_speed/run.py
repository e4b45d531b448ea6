"""Time a training step on a CPU: against matrix products, a bare loop and Hugging Face's Trainer.

Writes results.csv, a row for each measurement, and the table of the README. Rows that are there
are skipped. Takes about eight minutes with a baseline.
Usage: python experiments/step_speed/run.py [--threads 2] [--baseline CHECKOUT] [--fresh] [--table]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from vla.utils.csv_tables import markdown, put, read_table, write_table
from vla.utils.progress import Progress

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SECONDS = 35.0  # of one measurement
# size -> changes of config.yaml and steps of a repeat
SIZES: dict[str, tuple[list[str], int]] = {
    "1M": (
        [],
        50,
    ),  # the sizes of configs/decoder/gpt2_small4.yaml and configs/vision/conv_tiny.yaml
    "12M": (
        [
            "policy.vision.widths=[48,96,192]",
            "policy.decoder.config.n_embd=384",
            "policy.decoder.config.n_inner=1536",
            "policy.decoder.config.n_layer=6",
            "policy.decoder.config.n_head=6",
        ],
        6,
    ),
    "50M": (
        [
            "policy.vision.widths=[64,128,256]",
            "policy.decoder.config.n_embd=768",
            "policy.decoder.config.n_inner=3072",
            "policy.decoder.config.n_layer=7",
            "policy.decoder.config.n_head=12",
            "train.batch_size=8",
        ],
        2,
    ),
}
NAMES = {"lightning": "vla train", "hugging_face": "Hugging Face Trainer"}
KEY = ("code", "size", "loop", "threads")
COLUMNS = (
    *KEY,
    *("machine", "torch", "commit", "parameters", "batch", "repeats"),
    *("step_ms", "bare_ms", "ratio", "gflops_step", "peak_gflops", "utilisation"),
)


def machine() -> str:
    """The processor and its number of cores."""
    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.is_file():
        lines = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    return f"{name}, {os.cpu_count()} cores"


def measured(code: str, checkout: Path, size: str, loop: str, threads: int) -> dict[str, Any]:
    """A row of results.csv, measured in a process of its own with the package of a checkout."""
    changes, block = SIZES[size]
    told = {
        "data": f"data/step_speed/{code}",
        "changes": changes,
        "block": block,
        "loop": loop,
        "threads": threads,
        "seconds": SECONDS,
    }
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, str(HERE / "measure.py"), json.dumps(told)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{code}, {size}, {loop}: the measurement failed, see above")
    found = json.loads(done.stdout.splitlines()[-1])
    rate = found["gflops_step"] / (found["step_ms"] / 1000)
    found["utilisation"] = rate / max(rate, found["peak_gflops"])
    digits = {"ratio": 4, "utilisation": 3}
    texts = {
        k: f"{v:.{digits.get(k, 1)}f}" if isinstance(v, float) else str(v) for k, v in found.items()
    }
    start = {"code": code, "size": size, "loop": loop, "threads": str(threads)}
    return start | {"machine": machine()} | texts


def tables() -> dict[str, str]:
    """The table of the README by marker, from results.csv."""
    rows = read_table(HERE / "results.csv", COLUMNS)
    lines = [
        [
            r["code"],
            f"{int(r['parameters']) / 1e6:.1f}M",
            NAMES[r["loop"]],
            r["batch"],
            r["step_ms"],
            f"{100 * (float(r['ratio']) - 1):+.1f}",
            f"{float(r['gflops_step']):.1f}",
            f"{float(r['peak_gflops']):.0f}",
            r["utilisation"],
        ]
        for r in rows
    ]
    head = ["code", "parameters", "loop", "batch", "ms a step", "to a bare loop, %"]
    head += ["GFLOP a step", "peak, GFLOP/s", "utilisation"]
    setting = sorted({f"{r['machine']}; torch {r['torch']}; {r['threads']} threads" for r in rows})
    return {"speed": "\n\n".join([markdown(head, lines), *setting])}


def main() -> None:
    """Measure the missing rows and write the README's table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--baseline", type=Path, help="checkout that is measured too")
    parser.add_argument("--fresh", action="store_true", help="measure all rows again")
    parser.add_argument("--table", action="store_true", help="write the README's table only")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    told = parser.parse_args()
    path = HERE / "results.csv"
    rows: list[Any] = [] if told.fresh else [*read_table(path, COLUMNS)]
    wanted = [("now", ROOT, s, loop) for s in told.sizes for loop in NAMES]
    if told.baseline is not None:
        base = told.baseline.resolve()
        wanted += [("baseline", base, s, "lightning") for s in told.sizes]
    present = {tuple(r[k] for k in KEY) for r in rows}
    missing = [w for w in wanted if (w[0], w[2], w[3], str(told.threads)) not in present]
    if not told.table:
        done = len(wanted) - len(missing)
        with Progress("step speed", len(wanted), "measurements", done) as progress:
            for code, checkout, size, loop in missing:
                print(f"{progress.line()}: {code}, {size}, {NAMES[loop]}", file=sys.stderr)
                rows.append(measured(code, checkout, size, loop, told.threads))
                write_table(path, rows, COLUMNS)
                progress.advance()
    for name, text in tables().items():
        put(HERE / "README.md", name, text)


if __name__ == "__main__":
    main()
