"""Questions and answers of records, through a mapping."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from string import Formatter
from typing import Any

from vla.config.registry import nearest
from vla.data.locations import location_text
from vla.data.readers.files import SKIP_BAD
from vla.data.web.base import WebReader, WebRecord, first_column, known_column, value_of
from vla.data.web.mapping import WebMapping
from vla.data.web.values import LABEL_KEYS, corners, labelled_boxes, plain_text, texts, turns
from vla.errors import BadSample, DataError
from vla.types import QA
from vla.utils.resize import shown_part

_TURNS = ("conversations", "conversation", "messages", "texts")
_QUESTIONS = ("question", "query", "prompt", "instruction", "problem")
_ANSWERS = ("answers", "answer", "multiple_choice_answer", "label", "labels", "output", "response")
_CAPTIONS = (
    *("caption", "captions", "sentences", "sentence", "text", "txt", "description", "raw"),
    *("answer", "answers", "title"),
)
_LABELS = ("label", "labels", "class", "cls", "category")  # if there are neither texts nor boxes
_BOXES = ("objects", "bbox", "bboxes", "boxes", "box")
_CAPTION_PROMPT = "what does the image show?"
_PLACE_PROMPT = "where is the {label}?"


class Questions:
    """What a mapping makes of the rows of one reader.

    Raises:
        DataError: a column that the data set does not have, options that exclude each other, or
            no column with answers.
    """

    def __init__(self, reader: WebReader, mapping: WebMapping) -> None:
        self.reader, self.mapping = reader, mapping
        self.turns: str | None = None
        self.question: str | None = None
        self.answer: str | None = None
        self.boxes: str | None = None
        self._choose()
        inside = self.boxes == "objects" and not mapping.labels  # boxes with labels
        self.labels = None if inside or not self.boxes else self._column("labels", LABEL_KEYS)
        if not (self.turns or self.answer or self.boxes):
            columns = ", ".join(reader.columns)
            self._fail(
                "no column has a usual name of answers, captions, conversations or boxes; name it "
                f"with source.mapping.answer; columns are {columns}"
            )
        if self.boxes and not (mapping.box_format or reader.box_format):
            self._fail(
                f"the format does not say what the numbers of {self.boxes!r} are; set "
                "source.mapping.box_format=xywh (left, top, width, height) or xyxy (two corners)"
            )
        used = {"question": self.question, "labels": self.labels}
        for option in ("question", "labels"):
            if getattr(mapping, option) and not used[option]:
                form = "conversations" if self.turns else "boxes" if self.boxes else "answers"
                self._fail(f"mapping.{option} has no effect on {form}; remove it")
        self.kind = self._column("kind", ("answer_type",))
        for option in ("split", "group"):
            if getattr(mapping, option):
                known_column(reader.path, reader.columns, getattr(mapping, option), option)
        self.prompt = mapping.prompt or self._default_prompt()
        self._check_prompt()

    def _choose(self) -> None:
        """Set the columns of one form: conversations, answers, or boxes."""
        mapping = self.mapping
        options = ("conversations", "answer", "boxes")
        named = [n for n in options if getattr(mapping, n)]
        if len(named) > 1:
            self._fail(f"mapping.{named[0]} and mapping.{named[1]}: give one of them")
        form = next(iter(named), next((n for n in options if n in self.reader.defaults), ""))
        if form in ("", "conversations"):
            self.turns = self._column("conversations", _TURNS)
        if form in ("", "answer") and not self.turns:
            self.question = self._column("question", _QUESTIONS)
            self.answer = self._column("answer", _ANSWERS if self.question else _CAPTIONS)
        if form in ("", "boxes") and not (self.turns or self.answer):
            self.boxes = self._column("boxes", _BOXES)
        if form == "" and not (self.turns or self.answer or self.boxes):
            self.answer = self._column("answer", _LABELS)

    def _fail(self, message: str) -> None:
        raise DataError(f"{self.reader.path}: {message}")

    def _column(self, option: str, names: tuple[str, ...]) -> str | None:
        """The column of an option: the one that the user names, the format's, or a usual one."""
        wanted = getattr(self.mapping, option)
        if wanted is None:
            return self.reader.defaults.get(option) or first_column(self.reader.columns, names)
        if wanted == "":
            return None
        return known_column(self.reader.path, self.reader.columns, wanted, option)

    def _default_prompt(self) -> str:
        if self.boxes:
            return _PLACE_PROMPT
        return "{question}" if self.turns or self.question else _CAPTION_PROMPT

    def _check_prompt(self) -> None:
        known = [*self.reader.columns]
        known += ["question"] if self.turns or self.question not in (None, "question") else []
        known += ["label"] if self.boxes else []
        try:
            parts = list(Formatter().parse(self.prompt))
        except ValueError as error:
            self._fail(f"mapping.prompt={self.prompt!r}: {error}; write columns as {{question}}")
        self.fields = [name for _, name, _, _ in parts if name is not None]
        for name in self.fields:
            if name not in known:
                self._fail(
                    f"mapping.prompt={self.prompt!r}: no column {name!r}{nearest(name, known)}"
                )

    def of(self, record: WebRecord, shape: tuple[int, int], where: str) -> list[QA]:
        """The questions of a record.

        Args:
            shape: height and width of its image in px.
            where: begins the messages.

        Raises:
            BadSample: no image, except for conversations; texts that are empty or of an unknown
                form; or boxes outside the image.
        """
        try:
            if record.image is None and not self.turns:
                raise ValueError("no image")
            if self.boxes:
                found = self._places(record, shape)
            else:
                parts = self._talk if self.turns else self._answers
                found = [qa for row in record.rows for qa in parts(row)]
        except (ValueError, TypeError, AttributeError) as error:
            raise BadSample(f"{where}: {error}; {SKIP_BAD}") from error
        if not found:
            raise BadSample(f"{where}: no question with an answer; {SKIP_BAD}")
        for qa in found:
            if not qa.question.strip() or not qa.answer.strip():
                part = "question" if not qa.question.strip() else "answer"
                raise BadSample(f"{where}: an empty {part}; {SKIP_BAD}")
            qa.answer = self._cut(qa.answer)
            qa.needs_image = record.image is not None
        return found

    def _ask(self, row: Mapping[str, Any], **own: str) -> str:
        """The prompt with the columns of a row."""
        values = {n: own[n] if n in own else plain_text(value_of(row, n)) for n in self.fields}
        # "a.b" names an entry of a mapping here, and an attribute in ``str.format``.
        parts = Formatter().parse(self.prompt)
        return "".join(text + (values[name] if name else "") for text, name, _, _ in parts)

    def _kind(self, row: Mapping[str, Any], default: str) -> str:
        return (plain_text(value_of(row, self.kind)) if self.kind else "") or default

    def _talk(self, row: Mapping[str, Any]) -> list[QA]:
        pairs = turns(value_of(row, self.turns or ""))
        kind = self._kind(row, "conversation")
        found = []
        for n, (question, answer) in enumerate(pairs):
            before = [[q, self._cut(a)] for q, a in pairs[:n]] if self.mapping.history else []
            asked = self._ask(row, question=question)
            found.append(QA(asked, answer, kind, turns=before, metric="answer"))
        return found

    def _answers(self, row: Mapping[str, Any]) -> list[QA]:
        given = texts(value_of(row, self.answer or ""))
        if not given:
            raise ValueError("an empty answer")
        if not self.question:
            asked = self._ask(row)
            if self.answer in _LABELS:
                kind = self._kind(row, "label")
                return [QA(asked, label, kind, metric="answer") for label in given[:1]]
            kind = self._kind(row, "caption")
            return [QA(asked, caption, kind, metric="caption") for caption in given]
        question = plain_text(value_of(row, self.question))
        if not question:
            raise ValueError("an empty question")
        common = Counter(given).most_common(1)[0][0]  # the first one, if all occur once
        everyone = given if len(given) > 1 else []
        asked, kind = self._ask(row, question=question), self._kind(row, "question")
        return [QA(asked, common, kind, answers=everyone, metric="answer")]

    def _places(self, record: WebRecord, shape: tuple[int, int]) -> list[QA]:
        """A question for the place of every label that occurs once."""
        height, width = shape
        scale, form = self.mapping.box_scale, self.mapping.box_format or self.reader.box_format
        sides = (scale, scale) if scale else record.size or (width, height)
        size = (self.mapping.size, self.mapping.size)
        left, top, part_width, part_height = shown_part(shape, size, self.mapping.fit)
        boxes = [
            (row, label, box)
            for row in record.rows
            for label, box in labelled_boxes(
                value_of(row, self.boxes or ""),
                value_of(row, self.labels) if self.labels else None,
            )
        ]
        counts = Counter(label.lower() for _, label, _ in boxes)
        found = []
        for row, label, box in boxes:
            assert form is not None
            shares = corners(box, form, *sides)
            if counts[label.lower()] > 1:
                continue  # no single place
            xs = [(x * width - left) / part_width for x in shares[::2]]
            ys = [1 - (y * height - top) / part_height for y in shares[1::2]]
            x, y = sum(xs) / 2, sum(ys) / 2
            if not (0 <= x <= 1 and 0 <= y <= 1):
                continue  # outside the part that ``fit: crop`` shows
            place = location_text(x, y)
            if self.mapping.box_answer == "corners":
                place = f"{location_text(xs[0], ys[1])} {location_text(xs[1], ys[0])}"
            kind = self._kind(row, "where")
            found.append(QA(self._ask(row, label=label), place, kind, metric="place"))
        if not found:
            raise ValueError("no label with a single place")
        return found

    def _cut(self, answer: str) -> str:
        most, words = self.mapping.max_answer_words, answer.split()
        return answer if most is None or len(words) <= most else " ".join(words[:most])
