"""Scores of answers to questions about images: exact match, VQA accuracy, ANLS, BLEU, ROUGE-L."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torchmetrics.functional.text import bleu_score, edit_distance, rouge_score

LOCATION_TOLERANCE = 26  # of 256 location bins: a tenth of the image in each direction
_LOCATION = re.compile(r"(\d+) (\d+)$")  # "x y" at the end of an answer
_BOX = re.compile(r"(\d+) (\d+) (\d+) (\d+)")
_DIGITS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4"}
_DIGITS |= {"five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
_ARTICLES = {"a", "an", "the"}
_IOU = 0.5  # overlap from which a box is right
_ANLS = 0.5  # similarity below which ANLS is 0
PEOPLE = 3  # people with the same answer who make it right (VQA)


def words_are_equal(expected: str, answer: str) -> bool:
    """True if the words are equal, ignoring case, and a location at the end is close enough."""
    location, given = _LOCATION.search(expected), _LOCATION.search(answer)
    if location is None:
        return expected.lower() == answer.lower()
    if given is None:
        return False
    words, given_words = expected[: location.start()], answer[: given.start()]
    return words.lower() == given_words.lower() and _close(location, given)


def _close(a: re.Match[str], b: re.Match[str]) -> bool:
    pairs = zip(a.groups(), b.groups(), strict=True)
    return all(abs(int(x) - int(y)) <= LOCATION_TOLERANCE for x, y in pairs)


def place_is_right(expected: str, answer: str) -> bool:
    """True for a point within the tolerance, or a box whose overlap (IoU) is at least a half.

    Points are ``x y``; boxes are ``left bottom right top``; all in bins.
    """
    box = _BOX.fullmatch(expected)
    if box is None:
        given = _LOCATION.fullmatch(answer.strip())
        point = _LOCATION.fullmatch(expected)
        return point is not None and given is not None and _close(point, given)
    other = _BOX.fullmatch(answer.strip())
    if other is None:
        return False
    a, b = ([int(v) for v in match.groups()] for match in (box, other))
    width = min(a[2], b[2]) + 1 - max(a[0], b[0])
    height = min(a[3], b[3]) + 1 - max(a[1], b[1])
    both = max(0, width) * max(0, height)
    return both >= _IOU * (_area(a) + _area(b) - both) > 0


def _area(box: Sequence[int]) -> int:
    return max(0, box[2] + 1 - box[0]) * max(0, box[3] + 1 - box[1])


def normalised(answer: str) -> str:
    """An answer as VQA v2 compares it (arXiv 1505.00468, section 3).

    Lower case, without articles and punctuation, numbers as digits, contractions without their
    apostrophe. Decimal points and commas between digits are kept.
    """
    text = answer.lower().replace("\n", " ").replace("'", "").replace("’", "")
    text = re.sub(r"(?<=\d),(?=\d)", "", text)
    text = re.sub(r"(?!(?<=\d)\.(?=\d))[^\w\s]", " ", text)
    words = (_DIGITS.get(word, word) for word in text.split())
    return " ".join(word for word in words if word not in _ARTICLES)


def vqa_accuracy(answer: str, people: Sequence[str]) -> float:
    """min(n / 3, 1), where n of the people gave this answer (arXiv 1505.00468).

    The official script averages this over all sets of nine of ten people; here all count at once.
    """
    own = normalised(answer)
    return min(sum(normalised(p) == own for p in people) / PEOPLE, 1.0)


def exact_match(answer: str, references: Sequence[str]) -> bool:
    """True if the answer equals one of the references, see ``normalised``."""
    return normalised(answer) in {normalised(r) for r in references}


def anls(answer: str, references: Sequence[str]) -> float:
    """Normalised Levenshtein similarity to the nearest reference; 0 below a half.

    Its mean over questions is ANLS (arXiv 1905.13648).
    """
    given = " ".join(answer.lower().split())
    best = 0.0
    for reference in references:
        expected = " ".join(reference.lower().split())
        longest = max(len(given), len(expected))
        if longest == 0:
            return 1.0
        distance = float(edit_distance([given], [expected], reduction="sum"))
        best = max(best, 1.0 - distance / longest)
    return best if best >= _ANLS else 0.0


def caption_scores(
    captions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Corpus ``bleu4`` (up to four words) and mean ``rouge_l`` (best reference), 0 to 1.

    Case and punctuation do not count.
    """
    given = [_words(c) for c in captions]
    expected = [[_words(r) for r in group] for group in references]
    bleu = bleu_score(given, expected)
    plain: Any = {"normalizer": str, "tokenizer": str.split}  # the defaults drop other alphabets
    rouge = rouge_score(given, expected, accumulate="best", rouge_keys="rougeL", **plain)
    return {"bleu4": float(bleu), "rouge_l": float(rouge["rougeL_fmeasure"])}


def _words(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())
