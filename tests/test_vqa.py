"""Questions about images: scoring and counting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vla.data.packed import iter_samples
from vla.data.samples import read_json
from vla.errors import DataError
from vla.evaluation.answers import words_are_equal
from vla.evaluation.vqa import answer_questions, scores_by_test


@pytest.mark.parametrize(
    ("expected", "answer", "right"),
    [
        ("drum", "Drum", True),
        ("drum", "duck", False),
        ("143 97", "130 110", True),
        ("143 97", "143 130", False),
        ("143 97", "drum", False),
        ("drum 143 97", "drum 150 90", True),
        ("drum 143 97", "duck 143 97", False),
        ("3", "3", True),
        ("3", "4", False),
    ],
)
def test_texts_must_be_equal_and_locations_close(expected: str, answer: str, right: bool) -> None:
    assert words_are_equal(expected, answer) == right


class LocationPolicy:
    """Answers the "where" questions of a validation split, and no others."""

    def __init__(self, data: str) -> None:
        self.answers: list[Any] = [
            q["answer"] if q["tests"] == "where" else "?"
            for s in iter_samples(data, "val")
            for q in read_json(s)["qa"]
            if q["needs_image"]
        ]
        self.count = 0

    def answer(self, images: torch.Tensor, questions: list[str]) -> list[str]:
        first, self.count = self.count, self.count + len(questions)
        return self.answers[first : self.count]


def test_questions_of_a_split_are_answered_and_counted_by_test(tiny_data: dict[str, str]) -> None:
    web = tiny_data["web"]
    answers = answer_questions(LocationPolicy(web), web, batch=7, progress=False)
    rows = scores_by_test(answers)
    assert rows["where"]["accuracy"] == 1.0 and rows["name"]["accuracy"] == 0.0
    assert rows["all"]["n"] == len(answers)
    assert rows["all"]["accuracy"] == pytest.approx(np.mean([a.test == "where" for a in answers]))
    assert len(answer_questions(LocationPolicy(web), web, limit=5, progress=False)) == 5
    with pytest.raises(DataError, match="no web samples"):
        answer_questions(None, tiny_data["robot"], progress=False)
