"""Questions about pictures: what a policy still knows of the web after it has learned to act (RT-2's co-fine-tuning keeps it; robot data alone forgets)."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from vla.data.manifest import DataError, load_manifest, write_json
from vla.data.pictures import decode_image
from vla.data.samples import read_json
from vla.data.shards import untarred
from vla.evaluate import wilson

NEAR_BINS = 26  # a place is right within a tenth of the picture in both directions
_PLACE = re.compile(r"(\d+) (\d+)$")


@dataclass
class Answered:
    """One question; key: of its sample."""

    key: str
    test: str
    question: str
    wanted: str
    said: str
    right: bool


def is_right(wanted: str, said: str) -> bool:
    """The same words (capitals aside); numbers of a place at the end may be a tenth of the picture off."""
    a, b = _PLACE.search(wanted), _PLACE.search(said)
    if a is None:
        return wanted.lower() == said.lower()
    close = b is not None and all(abs(int(x) - int(y)) <= NEAR_BINS for x, y in zip(a.groups(), b.groups(), strict=True))
    return close and wanted[: a.start()].lower() == said[: b.start() if b else 0].lower()


@torch.no_grad()
def ask(
    policy: Any, data: str | Path, limit: int = 2000, batch: int = 64, split: str = "val", progress: bool = True
) -> list[Answered]:
    """The first ``limit`` questions of a split that need their picture, answered freely.

    Raises:
        DataError: not web data, or an empty split.
    """
    data = Path(data)
    manifest = load_manifest(data)
    shards = manifest["splits"][split]
    if manifest["kind"] != "web" or not shards:
        raise DataError(f"{data}: the {split} split has no web samples; give packed web data")
    waiting: list[tuple[str, torch.Tensor, dict[str, Any]]] = []
    for sample in untarred(data, iter([{"url": str(data / s)} for s in shards])):
        image = torch.from_numpy(decode_image(sample["jpg"], sample["__key__"])).permute(2, 0, 1)
        waiting += [(sample["__key__"], image, qa) for qa in read_json(sample)["qa"] if qa["needs_image"]]
        if len(waiting) >= limit:
            break
    waiting = waiting[:limit]
    out = []
    for first in track(range(0, len(waiting), batch), "questions", disable=not progress):
        part = waiting[first : first + batch]
        said = policy.answer(torch.stack([i for _, i, _ in part]), [qa["question"] for _, _, qa in part])
        for (key, _, qa), answer in zip(part, said, strict=True):
            out.append(Answered(key, qa["tests"], qa["question"], qa["answer"], answer, is_right(qa["answer"], answer)))
    return out


def by_test(answers: list[Answered]) -> dict[str, dict[str, float]]:
    """Per test and over all: n, share right, Wilson bounds."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for a in answers:
        groups[a.test].append(a.right)
    groups = dict(sorted(groups.items())) | {"all": [a.right for a in answers]}
    rows = {}
    for name, right in groups.items():
        low, high = wilson(sum(right), len(right))
        rows[name] = {"n": len(right), "right": float(np.mean(right)), "low": low, "high": high}
    return rows


def run_vqa(policy_dir: Path, data: Path, out: Path | None, limit: int) -> None:
    """``vla eval --vqa``: table and ``vqa.json``."""
    from vla.module import PolicyModule
    from vla.report import print_table

    policy: Any = PolicyModule.load(policy_dir)
    if not hasattr(policy, "answer"):
        raise DataError(f"{policy_dir}: this kind of policy answers no questions")
    answers = ask(policy, data, limit)
    summary = by_test(answers)
    rows = [
        {
            "test": t,
            "right": f"{100 * r['right']:.1f} %",
            "95 % interval": f"{100 * r['low']:.1f} to {100 * r['high']:.1f}",
            "questions": str(r["n"]),
        }
        for t, r in summary.items()
    ]
    print_table(rows, f"{policy_dir} asked about {data}")
    if out is not None:
        write_json(out / "vqa.json", {"data": str(data), "summary": summary, "answers": [asdict(a) for a in answers]})
