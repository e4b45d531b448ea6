"""Image-text data in annotation files with one row per image or question."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from web_files import NAMES, encoded, packed, write_images, write_json


def _table(rows: Callable[[int, str], dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows(n, name) for n, name in enumerate(NAMES)]


OTHER = {
    "textvqa.json": {
        "data": _table(lambda n, c: {"image_id": str(n), "question": "q", "answers": [c] * 10})
    },
    "vizwiz.json": _table(
        lambda n, c: {"image": f"{n}.jpg", "question": "q", "answers": [{"answer": c}] * 10}
    ),
    "gqa.json": {
        f"q{n}": {"imageId": n, "question": "q", "answer": c} for n, c in enumerate(NAMES)
    },
    "chartqa.json": _table(lambda n, c: {"imgname": f"{n}.jpg", "query": "q", "label": c}),
    "messages.jsonl": _table(
        lambda n, c: {
            "images": [f"{n}.jpg"],
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "q"}]},
                {"role": "assistant", "content": [{"type": "text", "text": c}]},
            ],
        }
    ),
    "the_cauldron.jsonl": _table(
        lambda n, c: {"image": f"{n}.jpg", "texts": [{"user": "q", "assistant": c}]}
    ),
    "metadata.csv": "file_name,question,answer\n"
    + "\n".join(f'{n}.jpg,q,"{c}"' for n, c in enumerate(NAMES)),
}


@pytest.mark.parametrize("name", OTHER)
def test_other_annotation_files_need_no_mapping(name: str, tmp_path: Path) -> None:
    root, content = write_images(tmp_path / "data"), OTHER[name]
    if name.endswith(".jsonl"):
        content = "\n".join(json.dumps(row) for row in content)
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content))
    rows = packed(root)
    assert [r["colour"] for r in rows] == NAMES
    assert [r["qa"] for r in rows] == [[("q", name)] for name in NAMES]


def test_images_may_be_base64_texts(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    texts = [base64.b64encode(encoded(name, "BMP")).decode() for name in NAMES]
    texts[0] = f"data:image/bmp;base64,{texts[0]}"
    write_json(file, [{"image": text, "caption": "x"} for text in texts])
    assert [r["colour"] for r in packed(file)] == NAMES


def test_karpathy_splits_have_captions_and_recorded_splits(tmp_path: Path) -> None:
    root = write_images(tmp_path / "data")
    images = [
        {"filename": f"{n}.jpg", "split": "val" if n > 3 else "restval", "imgid": n}
        | {"sentences": [{"raw": f"{c} one"}, {"raw": f"{c} two"}]}
        for n, c in enumerate(NAMES)
    ]
    write_json(root / "dataset_flickr8k.json", {"images": images, "dataset": "flickr8k"})
    rows = packed(root)
    assert [r["split"] for r in rows] == ["train"] * 4 + ["val"] * 2
    assert [a for _, a in rows[1]["qa"]] == ["green one", "green two"]


def test_rows_about_one_image_are_one_sample(tmp_path: Path) -> None:
    root = write_images(tmp_path / "data")
    rows = [
        {"image": f"{n}.jpg", "question": f"q{k}", "answer": c}
        for k in range(3)
        for n, c in enumerate(NAMES)
    ]
    write_json(root / "questions.json", rows)
    found = packed(root)
    assert len(found) == len(NAMES) and [q for q, _ in found[0]["qa"]] == ["q0", "q1", "q2"]
