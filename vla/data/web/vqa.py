"""VQA v2: questions and annotations in separate JSON files, images by COCO's numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vla.config.registry import register
from vla.data.web.base import split_of
from vla.data.web.documents import documents, readable, vqa_rows
from vla.data.web.listed import ListedReader
from vla.data.web.mapping import WebMapping
from vla.errors import DataError
from vla.utils.text import count


@register("web_reader", "vqa")
class VqaReader(ListedReader):
    """A folder with ``*questions*.json`` and ``*annotations*.json``, or one file of questions.

    One record is an image with all its questions. VQA v1, OK-VQA and A-OKVQA's older form are
    alike.

    Raises:
        DataError: questions without annotations, damaged files, or none of the images exists.
    """

    format, layout, order = "vqa", "questions and annotations in *.json (VQA v2)", 10
    columns = ("question", "answers", "multiple_choice_answer", "question_type", "answer_type")
    defaults = MappingProxyType({"question": "question", "answer": "answers"})

    @classmethod
    def detects(cls, path: Path) -> bool:
        """True if a JSON file has questions, each with the number of its image."""
        return any(vqa_rows(content, "questions") for _, content in readable(path))

    def __init__(self, path: Path, images: Path | None, mapping: WebMapping) -> None:
        super().__init__(path, images)
        files = [
            (file, rows, str(content.get("data_subtype") or ""))
            for file, content in readable(path)
            if (rows := vqa_rows(content, "questions"))
        ]
        if not files:
            raise DataError(f"{path}: no JSON file has questions with image_id and question_id")
        answers = dict(_annotations(path))
        if not answers:
            raise DataError(
                f"{path}: no annotations with question_id beside the questions; "
                "download the annotations of VQA too"
            )
        unanswered = 0
        for file, questions, subtype in files:
            split = split_of(subtype or file.stem)
            for number, row in enumerate(questions):
                try:
                    answer, image = answers.get(str(row["question_id"])), str(row["image_id"])
                    joined = {"question": row["question"], **(answer or {})}
                except (KeyError, TypeError) as error:
                    raise DataError(
                        f"{file}: question {number} lacks {error}; download it again"
                    ) from error
                if answer is None:
                    unanswered += 1
                else:
                    self.add(file, image, image, joined, split, subtype)
        if not self.records:
            raise DataError(f"{path}: no question has an annotation; are they of the same split?")
        if unanswered:
            text = count(unanswered, "question")
            self.notes.append(f"{text} without annotations left out")
        self.check_images()


def _annotations(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Question id -> annotation; also from the folders beside a single file of questions."""
    for file in (path, path.parent, path.parent.parent / "annotations"):
        found = False
        for _, content in readable(file) if documents(file) else ():
            for row in vqa_rows(content, "annotations") or ():
                found = True
                yield str(row["question_id"]), row
        if found or path.is_dir():
            return
