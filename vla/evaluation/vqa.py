"""Scores of a policy's answers to questions about web images.

RT-2's co-fine-tuning keeps this knowledge; fine-tuning on robot data alone loses it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla.data.images import decode_image
from vla.data.packed import PackedFolder, open_packed
from vla.data.samples import read_json
from vla.errors import DataError
from vla.evaluation.answers import (
    anls,
    caption_scores,
    exact_match,
    place_is_right,
    vqa_accuracy,
    words_are_equal,
)
from vla.evaluation.statistics import wilson
from vla.models.prompts import after_turns
from vla.policies.checkpoint import load_policy
from vla.utils.io import write_json
from vla.utils.progress import Progress
from vla.utils.tables import print_table

_TOKENS = 24  # tokens of an answer, if no expected answer of the batch is longer
_MOST_TOKENS = 256
_SENTENCE = 4  # mean words of the expected answers above which n-grams are compared


@dataclass
class AnsweredQuestion:
    """One question with the expected and the given answer."""

    key: str  # of the web sample
    test: str  # the kind of knowledge that the question tests
    question: str
    expected: str
    answer: str
    correct: bool
    references: list[str] = field(default_factory=list)  # all expected answers
    metric: str = "words"  # see ``vla.types.Metric``
    people: bool = False  # the references are the answers of several people


def is_correct(answer: str, references: Sequence[str], metric: str) -> bool:
    """Whether an answer is right, by the metric of its question (see ``vla.types.Metric``)."""
    if metric == "words":
        return words_are_equal(references[0], answer)
    if metric == "place":
        return place_is_right(references[0], answer)
    return exact_match(answer, references)


@torch.no_grad()
def answer_questions(
    policy: Any,
    data: str | Path,
    limit: int | None = 2000,
    batch: int = 64,
    split: str = "val",
    progress: bool = True,
) -> list[AnsweredQuestion]:
    """Answers to the first ``limit`` questions of a split that need their image; None: all.

    Raises:
        DataError: not web data, an empty split, or no such question.
    """
    packed = open_packed(data)
    if packed.manifest.kind != "web":
        raise DataError(f"{data}: the {split} split has no web samples; give packed web data")
    found, results = islice(questions_of(packed, split), limit), []
    with Progress(f"questions of {data}", limit, "questions", show=progress) as bar:
        while part := list(islice(found, batch)):
            results += _answer(policy, part)
            bar.advance(len(part))
    if not results:
        raise DataError(f"{data}: its {split} split has no question about an image")
    return results


def _answer(
    policy: Any, part: list[tuple[str, torch.Tensor, dict[str, Any]]]
) -> list[AnsweredQuestion]:
    images = torch.stack([image for _, image, _ in part])
    asked = [after_turns(qa["question"], qa.get("turns", [])) for _, _, qa in part]
    longest = max(len(r.split()) for _, _, qa in part for r in qa["references"])
    tokens = min(3 * longest, _MOST_TOKENS)  # a word has a few tokens
    answers = policy.answer(images, asked, **({"max_tokens": tokens} if tokens > _TOKENS else {}))
    results = []
    for (key, _, qa), answer in zip(part, answers, strict=True):
        references, metric = qa["references"], qa.get("metric", "words")
        correct = is_correct(answer, references, metric)
        fields = (key, qa["tests"], qa["question"], qa["answer"], answer, correct)
        people = bool(qa.get("answers"))
        results.append(AnsweredQuestion(*fields, references, metric, people))
    return results


def questions_of(
    packed: PackedFolder, split: str
) -> Iterator[tuple[str, torch.Tensor, dict[str, Any]]]:
    """Sample key, image (3, H, W) uint8, and question with all ``references``.

    The captions of an image are the references of one question.
    """
    for sample in packed.samples(split):
        meta = read_json(sample)
        asked: dict[str, dict[str, Any]] = {}
        for number, qa in enumerate(meta["qa"]):
            if not qa["needs_image"]:
                continue
            same = qa["question"] if qa.get("metric") == "caption" else str(number)
            if same in asked:
                asked[same]["references"].append(qa["answer"])
            else:
                asked[same] = qa | {"references": [*(qa.get("answers") or [qa["answer"]])]}
        key = sample["__key__"]
        image = torch.from_numpy(decode_image(sample["jpg"], key).copy()).permute(2, 0, 1)
        yield from ((key, image, qa) for qa in asked.values())


def scores_by_test(answers: list[AnsweredQuestion]) -> dict[str, dict[str, float]]:
    """Test -> n, accuracy (0 to 1) with Wilson bounds, and further scores; "all": every question.

    ``vqa_accuracy`` is over questions that several people answered, ``anls`` over those with
    short texts as answers, ``bleu4`` and ``rouge_l`` over captions and sentences.
    """
    groups: dict[str, list[AnsweredQuestion]] = defaultdict(list)
    for a in answers:
        groups[a.test].append(a)
    return {name: _scores(group) for name, group in [*sorted(groups.items()), ("all", answers)]}


def _scores(group: list[AnsweredQuestion]) -> dict[str, float]:
    correct = sum(a.correct for a in group)
    low, high = wilson(correct, len(group))
    row = {"n": len(group), "accuracy": correct / len(group), "low": low, "high": high}
    people = [vqa_accuracy(a.answer, a.references) for a in group if a.people]
    if people:
        row["vqa_accuracy"] = float(np.mean(people))
    texts = [a for a in group if a.metric == "answer"]
    # The distance of letters says little about sentences, and takes seconds for each.
    if texts and np.mean([len(a.expected.split()) for a in texts]) <= _SENTENCE:
        row["anls"] = float(np.mean([anls(a.answer, a.references) for a in texts]))
        texts = []
    texts += [a for a in group if a.metric == "caption"]
    if texts:
        row |= caption_scores([a.answer for a in texts], [a.references for a in texts])
    return row


def run_vqa(
    policy_dir: Path,
    data: Path,
    out: Path | None,
    limit: int | None,
    split: str = "val",
    file: str = "vqa.json",
) -> None:
    """``vla eval-vqa``: a table, and with ``out`` a JSON file.

    Raises:
        DataError: the policy cannot answer questions, or as ``answer_questions``.
    """
    policy: Any = load_policy(policy_dir)
    if not hasattr(policy, "answer"):
        raise DataError(f"{policy_dir}: {type(policy).__name__} cannot answer questions")
    answers = answer_questions(policy, data, limit, split=split)
    summary = scores_by_test(answers)
    extra = [n for n in ("vqa_accuracy", "anls", "bleu4", "rouge_l") if n in summary["all"]]
    rows = [
        {
            "test": test,
            "accuracy": f"{100 * row['accuracy']:.1f} %",
            "95 % interval": f"{100 * row['low']:.1f} to {100 * row['high']:.1f}",
            **{n.replace("_", " "): f"{row[n]:.3f}" if n in row else "-" for n in extra},
            "questions": str(row["n"]),
        }
        for test, row in summary.items()
    ]
    print_table(rows, f"{policy_dir}: questions about {data} ({split})")
    if out is not None:
        details = [asdict(a) for a in answers]
        about = {"data": str(data), "split": split, "summary": summary, "answers": details}
        write_json(out / file, about)
