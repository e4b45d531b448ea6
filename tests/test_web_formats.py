"""Image-text data in the formats of the web: what `vla pack` makes of each."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from web_files import (
    NAMES,
    encoded,
    image_table,
    packed,
    picture,
    write_coco,
    write_json,
    write_llava,
    write_parquet,
    write_saved_dataset,
    write_vqa,
    write_webdataset,
)

from vla.data.web.source import WebDataSource
from vla.errors import DataError


@pytest.mark.parametrize("captions", ["txt", "json"])
def test_webdataset(captions: str, tmp_path: Path) -> None:
    rows = packed(write_webdataset(tmp_path / "wds", captions))
    assert [r["colour"] for r in rows] == NAMES
    asked = "what does the image show?"
    assert [r["qa"] for r in rows] == [[(asked, f"a {name} square")] for name in NAMES]
    assert rows[0]["meta"][0]["metric"] == "caption" and rows[0]["key"] == "000000"


def test_llava_conversations_keep_their_turns(tmp_path: Path) -> None:
    rows = packed(write_llava(tmp_path / "llava"))
    assert [r["colour"] for r in rows] == [*NAMES, "none"]
    first, second = rows[1]["meta"]
    assert rows[1]["qa"] == [("What colour is it?", "green"), ("Are you sure?", "yes, green")]
    assert "turns" not in first and second["turns"] == [["What colour is it?", "green"]]
    hello = rows[-1]["meta"][0]  # a text without an image does not attend to it
    assert hello["answer"] == "hello" and not hello["needs_image"] and first["needs_image"]


def test_llava_without_history_and_with_a_prompt(tmp_path: Path) -> None:
    file = write_llava(tmp_path / "llava") / "llava_instruct.json"
    options = ["source.mapping.history=false", "source.mapping.prompt='{question} One word.'"]
    rows = packed(file, *options, "source.mapping.max_answer_words=1")
    assert rows[0]["qa"][1] == ("Are you sure? One word.", "yes,")
    assert "turns" not in rows[0]["meta"][1]
    with pytest.raises(DataError, match=r"mapping\.question has no effect on conversations"):
        packed(file, "source.mapping.question=id")


def test_vqa_v2_joins_questions_answers_and_images(tmp_path: Path) -> None:
    root = write_vqa(tmp_path / "vqa")
    rows = packed(root)
    assert [r["colour"] for r in rows] == NAMES
    assert [r["split"] for r in rows] == ["train"] * 4 + ["val"] * 2
    question = rows[2]["meta"][0]
    assert (question["question"], question["answer"]) == ("What colour?", "blue")
    assert question["answers"] == ["blue"] * 8 + ["grey"] * 2 and question["tests"] == "other"
    only = packed(root / "v2_OpenEnded_mscoco_val2014_questions.json", force=True)
    assert [r["colour"] for r in only] == NAMES[4:]


def test_coco_captions_are_one_sample_for_each_image(tmp_path: Path) -> None:
    rows = packed(write_coco(tmp_path / "coco"))
    assert [r["colour"] for r in rows] == NAMES and len(rows[0]["qa"]) == 5
    assert rows[0]["qa"][4][1] == "a red picture number 4"
    # All images are of the validation split, which is then no split.
    assert {r["split"] for r in rows} == {"train", "val"}


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ([], "64 192"),  # a quarter from the left, three quarters from the bottom
        (["source.mapping.box_answer=corners"], "0 128 128 255"),
        # 40 x 30 px: the middle 30 columns are shown, and the dog's centre is in the fifth.
        (["source.mapping.fit=crop"], "42 192"),
        # black bands of 5 rows above and below: (5 + 7.5) / 40 from the top
        (["source.mapping.fit=pad"], "64 176"),
    ],
)
def test_coco_boxes_ask_for_the_place_of_labels_that_occur_once(
    options: list[str], place: str, tmp_path: Path
) -> None:
    rows = packed(write_coco(tmp_path / "coco", ("instances",)), *options)
    assert [r["qa"] for r in rows] == [[("where is the dog?", place)]] * len(NAMES)
    assert rows[0]["meta"][0]["metric"] == "place"


def test_parquet_shards_have_the_splits_of_their_names(tmp_path: Path) -> None:
    rows = packed(write_parquet(tmp_path / "hf"))
    assert [r["colour"] for r in rows] == NAMES
    assert [r["split"] for r in rows] == ["train"] * 4 + ["val"] * 2
    assert rows[4]["qa"] == [("What colour is this?", "green")]


def test_a_saved_dataset_has_the_names_of_its_classes(tmp_path: Path) -> None:
    rows = packed(write_saved_dataset(tmp_path / "hf"), "source.mapping.prompt='which colour?'")
    assert [r["colour"] for r in rows] == [*NAMES[4:], *NAMES[:4]]
    assert (
        rows[0]["qa"] == [("which colour?", "green")] and rows[0]["meta"][0]["metric"] == "answer"
    )
    assert [r["split"] for r in rows] == ["val"] * 2 + ["train"] * 4


@pytest.mark.parametrize("relative", [False, True])
def test_boxes_of_a_parquet_table(relative: bool, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    scale = (40, 30) if relative else (1, 1)
    box = [10 / scale[0], 15 / scale[1], 20 / scale[0], 30 / scale[1]]
    objects = [{"bbox": [box, box, box], "category": ["dog", "cat", "cat"]}] * len(NAMES)
    (tmp_path / "data").mkdir()
    table = image_table(NAMES, objects=pa.array(objects))
    pq.write_table(table, tmp_path / "data" / "boxes.parquet")
    options = ["source.mapping.box_format=xyxy", "source.mapping.prompt='find the {label}'"]
    rows = packed(tmp_path / "data", *options, *["source.mapping.box_scale=1"] * relative)
    assert rows[0]["qa"] == [("find the dog", "96 64")]


def test_other_processes_pack_the_same(tmp_path: Path) -> None:
    root = write_vqa(tmp_path / "vqa")
    source = WebDataSource(str(root))
    again = pickle.loads(pickle.dumps(source))  # noqa: S301  # as a worker gets it
    assert again.describe() == source.describe() and again[3] == source[3]
    assert len(pickle.dumps(source)) < 2000  # the annotations are not copied


def test_grey_transparent_and_large_images_become_colour(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    picture("red").convert("L").save(root / "0.png")
    picture("green").convert("RGBA").save(root / "1.webp", lossless=True)
    picture("blue", (1500, 900)).save(root / "2.bmp")
    (root / "3.jpg").write_bytes(encoded("red"))
    rows = [{"file_name": f"{n}", "text": "x"} for n in range(4)]  # names without suffix
    write_json(root / "captions.json", rows)
    assert [r["colour"] for r in packed(root)][1:] == ["green", "blue", "red"]
