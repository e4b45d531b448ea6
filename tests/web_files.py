"""Small image-text data sets in the formats of the web, written by the formats' own libraries.

Every image has one colour, so that its question can be answered.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vla.data.images import decode_image
from vla.data.pack import pack_from
from vla.data.packed import open_packed
from vla.data.samples import read_json

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 40), "blue": (30, 50, 220)}
NAMES = [*COLOURS, *COLOURS]  # of the six images


def picture(name: str, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """An image of one colour, ``size`` is width and height."""
    return Image.fromarray(np.full((size[1], size[0], 3), COLOURS[name], np.uint8))


def encoded(name: str, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    picture(name).save(buffer, kind)
    return buffer.getvalue()


def write_images(folder: Path, name: str = "{n}.jpg") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for n, colour in enumerate(NAMES):
        picture(colour).save(folder / name.format(n=n))
    return folder


def write_json(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def write_webdataset(root: Path, captions: str = "txt") -> Path:
    """Two tars with captions as ``.txt`` or ``.json``."""
    import webdataset

    root.mkdir(parents=True)
    for shard in range(2):
        with webdataset.TarWriter(str(root / f"{shard:05d}.tar")) as writer:
            for n in range(3 * shard, 3 * shard + 3):
                text = f"a {NAMES[n]} square"
                part = text if captions == "txt" else {"caption": text, "width": 40}
                sample = {"__key__": f"{n:06d}", "jpg": encoded(NAMES[n]), captions: part}
                writer.write(sample)
    return root


def write_llava(root: Path) -> Path:
    """LLaVA's instruction data: two turns for every image, and one text without an image."""
    write_images(root / "pictures")
    rows: list[dict[str, Any]] = [
        {
            "id": f"c{n}",
            "image": f"pictures/{n}.jpg",
            "conversations": [
                {"from": "human", "value": "<image>\nWhat colour is it?"},
                {"from": "gpt", "value": name},
                {"from": "human", "value": "Are you sure?"},
                {"from": "gpt", "value": f"yes, {name}"},
            ],
        }
        for n, name in enumerate(NAMES)
    ]
    said = [{"from": "human", "value": "Say hello."}, {"from": "gpt", "value": "hello"}]
    rows.append({"id": "t", "conversations": said})
    write_json(root / "llava_instruct.json", rows)
    return root


def write_vqa(root: Path) -> Path:
    """VQA v2: four images for training, two for validation, ten answers for every question."""
    for split, numbers in (("train2014", range(4)), ("val2014", range(4, 6))):
        folder = root / split
        folder.mkdir(parents=True)
        questions, annotations = [], []
        for n in numbers:
            picture(NAMES[n]).save(folder / f"COCO_{split}_{n:012d}.jpg")
            for k, (text, kind) in enumerate((("What colour?", "other"), ("Is it red?", "yes/no"))):
                about = {"image_id": n, "question_id": 10 * n + k}
                right = NAMES[n] if k == 0 else ("yes" if NAMES[n] == "red" else "no")
                people = [right] * 8 + ["grey"] * 2
                answers = [{"answer": a, "answer_confidence": "yes"} for a in people]
                questions.append(about | {"question": text})
                extra = {"answers": answers, "answer_type": kind, "question_type": "what"}
                annotations.append(about | extra | {"multiple_choice_answer": right})
        about = {"data_subtype": split, "info": {}, "license": {}}
        name = f"v2_OpenEnded_mscoco_{split}_questions.json"
        write_json(root / name, about | {"questions": questions})
        name = f"v2_mscoco_{split}_annotations.json"
        write_json(root / name, about | {"annotations": annotations})
    return root


def write_coco(root: Path, kinds: tuple[str, ...] = ("captions",)) -> Path:
    """COCO: five captions, or boxes: a dog at the upper left and two cats."""
    write_images(root / "val2017", "{n:012d}.jpg")
    images = [
        {"id": n, "file_name": f"{n:012d}.jpg", "width": 40, "height": 30}
        for n in range(len(NAMES))
    ]
    if "captions" in kinds:
        rows = [
            {"image_id": n, "id": 5 * n + k, "caption": f"a {name} picture number {k}"}
            for n, name in enumerate(NAMES)
            for k in range(5)
        ]
        content = {"images": images, "annotations": rows}
        write_json(root / "annotations" / "captions_val2017.json", content)
    if "instances" in kinds:
        boxes = [(1, [0, 0, 20, 15]), (2, [0, 0, 10, 10]), (2, [30, 20, 10, 10])]
        rows = [
            {"image_id": n, "id": 10 * n + k, "category_id": c, "bbox": box, "iscrowd": 0}
            | {"segmentation": [[1, 2, 3, 4, 5, 6]]}
            for n in range(len(NAMES))
            for k, (c, box) in enumerate(boxes)
        ]
        categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
        content = {"images": images, "annotations": rows, "categories": categories}
        write_json(root / "annotations" / "instances_val2017.json", content)
    return root


def image_table(names: list[str], **columns: Any) -> Any:
    """A table as ``datasets`` writes it: images are structs of bytes and a path."""
    import pyarrow as pa

    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values = [{"bytes": encoded(name, "PNG"), "path": None} for name in names]
    return pa.table({"image": pa.array(values, struct), **columns})


def write_parquet(root: Path) -> Path:
    """Hugging Face ``datasets``: two training shards, one for validation."""
    import pyarrow.parquet as pq

    (root / "data").mkdir(parents=True)
    parts = {"train-00000-of-00002": NAMES[:2], "train-00001-of-00002": NAMES[2:4]}
    parts["validation-00000-of-00001"] = NAMES[4:]
    for part, names in parts.items():
        questions = ["What colour is this?"] * len(names)
        table = image_table(names, question=questions, answer=names)
        pq.write_table(table, root / "data" / f"{part}.parquet", row_group_size=1)
    return root


def write_saved_dataset(root: Path) -> Path:
    """The folder of ``DatasetDict.save_to_disk``, with names of classes in the metadata."""
    import pyarrow as pa

    names = list(COLOURS)
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    write_json(root / "dataset_dict.json", {"splits": ["train", "test"]})
    for split, part in (("train", NAMES[:4]), ("test", NAMES[4:])):
        table = image_table(part, label=[names.index(n) for n in part])
        table = table.replace_schema_metadata(about)
        folder = root / split
        write_json(folder / "state.json", {"_split": split})
        write_json(folder / "dataset_info.json", {"features": features})
        with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as writer:
            writer.write_table(table)
    return root


def packed(path: Path, *overrides: str, **options: Any) -> list[dict[str, Any]]:
    """Key, questions, mean colour and split of every sample, in the order of the source."""
    out = path.parent / "packed"
    manifest = pack_from(path, out, ["source.mapping.size=16", *overrides], **options)
    folder = open_packed(out)
    assert (manifest.kind, manifest.action_space) == ("web", None)
    assert manifest.image_size == (16, 16)
    val = {r.id for r in folder.rows("val")}
    found = []
    for row, sample in zip(folder.index, folder.samples(), strict=True):
        meta, image = read_json(sample), decode_image(sample["jpg"], "")
        assert image.shape == (16, 16, 3)
        colour = image.mean((0, 1))
        nearest = min(COLOURS, key=lambda n: np.abs(colour - COLOURS[n]).sum())
        found.append(
            {
                "key": meta["key"],
                "qa": [(q["question"], q["answer"]) for q in meta["qa"]],
                "meta": meta["qa"],
                "colour": "none" if colour.sum() < 9 else nearest,
                "split": "val" if row.id in val else "train",
            }
        )
    return found
