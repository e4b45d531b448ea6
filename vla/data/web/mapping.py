"""Options that map columns of image-text data to questions and answers."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from vla.config import check_ranges
from vla.data.images import Encoding
from vla.types import ImageFit

BoxFormat = Literal["xywh", "xyxy", "cxcywh"]
BoxAnswer = Literal["centre", "corners"]


@dataclass(frozen=True)
class WebMapping:
    """Which columns are used, and how. The defaults fit data sets with the usual names."""

    # Column with the image: its file name, its bytes, or both. Default: image, file_name, ...
    image: str | None = None
    # Column with the question (default: question, query, ...). "": none, so answers are captions.
    question: str | None = None
    # Column with the answer, several people's answers, or one or several captions. Default:
    # answers, answer, caption, text, ...
    answer: str | None = None
    # Column with the turns of a conversation (default: conversations, messages, texts).
    conversations: str | None = None
    # Column with bounding boxes; the question asks for the place of a label (default: objects,
    # bbox, ... if there are neither answers nor conversations).
    boxes: str | None = None
    labels: str | None = None  # column with the labels of the boxes (default: the one beside them)
    # Numbers of a box. xywh: left, top, width, height; xyxy: two corners; cxcywh: centre, width,
    # height. Needed where the format does not say it.
    box_format: BoxFormat | None = None
    # Coordinate of the right and lower edge of the image, for example 1 or 1000. Default: its
    # width and height in px.
    box_scale: float | None = None
    # Place as 256 bins from the left and the bottom. centre: "x y"; corners: "left bottom right
    # top".
    box_answer: BoxAnswer = "centre"
    # Template of the question, such as "{question} answer briefly."; also with other text columns.
    # Default: "{question}", "what does the image show?" for captions, "where is the {label}?".
    prompt: str | None = None
    history: bool = True  # the question of a later turn is preceded by the earlier turns
    max_answer_words: int | None = None  # longer answers end there (default: no limit)
    # Column with the kind of a question, by which results are listed (default: answer_type of
    # VQA v2, else one kind).
    kind: str | None = None
    # Column with the recorded split (default: from the names of files and folders).
    split: str | None = None
    group: str | None = None  # text column; validation images are drawn from every value
    size: int = 224  # side of the packed square images, px
    # stretch: the whole image; crop: its central square; pad: the whole image on black.
    fit: ImageFit = "stretch"
    # jpeg; or ppm: lossless and faster to read, several times the disk space.
    image_format: Encoding = "jpeg"

    def __post_init__(self) -> None:
        check_ranges(self, size=(1, 4096))
        if self.max_answer_words is not None:
            check_ranges(self, max_answer_words=(1, inf))
        if self.box_scale is not None:
            check_ranges(self, box_scale=(1e-9, inf))
