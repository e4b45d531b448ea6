"""Accuracy on questions about web images.

RT-2's co-fine-tuning keeps this knowledge; fine-tuning on robot data alone loses it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla.data.images import decode_image
from vla.data.packed import open_packed
from vla.data.samples import read_json
from vla.errors import DataError
from vla.evaluation.statistics import wilson
from vla.policies.checkpoint import load_policy
from vla.utils.io import write_json
from vla.utils.progress import track
from vla.utils.tables import print_table

LOCATION_TOLERANCE = 26  # of 256 location bins: a tenth of the image in each direction
_LOCATION = re.compile(r"(\d+) (\d+)$")  # "x y" at the end of an answer


@dataclass
class AnsweredQuestion:
    """One question with the expected and the given answer."""

    key: str  # of the web sample
    test: str  # the kind of knowledge that the question tests
    question: str
    expected: str
    answer: str
    correct: bool


def is_correct(expected: str, answer: str) -> bool:
    """True if the words are equal, ignoring case, and a location at the end is close enough."""
    location, given = _LOCATION.search(expected), _LOCATION.search(answer)
    if location is None:
        return expected.lower() == answer.lower()
    if given is None:
        return False
    close = all(
        abs(int(a) - int(b)) <= LOCATION_TOLERANCE
        for a, b in zip(location.groups(), given.groups(), strict=True)
    )
    words, given_words = expected[: location.start()], answer[: given.start()]
    return close and words.lower() == given_words.lower()


@torch.no_grad()
def answer_questions(
    policy: Any,
    data: str | Path,
    limit: int = 2000,
    batch: int = 64,
    split: str = "val",
    progress: bool = True,
) -> list[AnsweredQuestion]:
    """Answers to the first ``limit`` questions of a split that need their image.

    Raises:
        DataError: not web data, or an empty split.
    """
    questions = _read_questions(Path(data), split, limit)
    results = []
    firsts = range(0, len(questions), batch)
    for first in track(firsts, f"questions of {data}", unit="batches", show=progress):
        part = questions[first : first + batch]
        images = torch.stack([image for _, image, _ in part])
        answers = policy.answer(images, [qa["question"] for _, _, qa in part])
        for (key, _, qa), answer in zip(part, answers, strict=True):
            correct = is_correct(qa["answer"], answer)
            fields = (key, qa["tests"], qa["question"], qa["answer"], answer, correct)
            results.append(AnsweredQuestion(*fields))
    return results


def _read_questions(
    data: Path, split: str, limit: int
) -> list[tuple[str, torch.Tensor, dict[str, Any]]]:
    """Sample key, image (3, H, W) uint8, and question with answer."""
    packed = open_packed(data)
    if packed.manifest.kind != "web":
        raise DataError(f"{data}: the {split} split has no web samples; give packed web data")
    questions: list[tuple[str, torch.Tensor, dict[str, Any]]] = []
    for sample in packed.samples(split):
        key = sample["__key__"]
        image = torch.from_numpy(decode_image(sample["jpg"], key)).permute(2, 0, 1)
        questions += [(key, image, qa) for qa in read_json(sample)["qa"] if qa["needs_image"]]
        if len(questions) >= limit:
            break
    return questions[:limit]


def accuracy_by_test(answers: list[AnsweredQuestion]) -> dict[str, dict[str, float]]:
    """Test -> n, accuracy (0 to 1) and its Wilson bounds; the row "all" has every question."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for a in answers:
        groups[a.test].append(a.correct)
    groups = dict(sorted(groups.items())) | {"all": [a.correct for a in answers]}
    rows = {}
    for name, correct in groups.items():
        low, high = wilson(sum(correct), len(correct))
        accuracy = float(np.mean(correct))
        rows[name] = {"n": len(correct), "accuracy": accuracy, "low": low, "high": high}
    return rows


def run_vqa(policy_dir: Path, data: Path, out: Path | None, limit: int) -> None:
    """``vla eval-vqa``: a table, and with ``out`` the file ``vqa.json``."""
    policy: Any = load_policy(policy_dir)
    if not hasattr(policy, "answer"):
        raise DataError(f"{policy_dir}: {type(policy).__name__} cannot answer questions")
    answers = answer_questions(policy, data, limit)
    summary = accuracy_by_test(answers)
    rows = [
        {
            "test": test,
            "accuracy": f"{100 * row['accuracy']:.1f} %",
            "95 % interval": f"{100 * row['low']:.1f} to {100 * row['high']:.1f}",
            "questions": str(row["n"]),
        }
        for test, row in summary.items()
    ]
    print_table(rows, f"{policy_dir}: questions about {data}")
    if out is not None:
        details = [asdict(a) for a in answers]
        about = {"data": str(data), "summary": summary, "answers": details}
        write_json(out / "vqa.json", about)
