"""Image-text data with damage: one clear error, or the quarantine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from web_files import (
    NAMES,
    write_coco,
    write_images,
    write_json,
    write_llava,
    write_parquet,
    write_vqa,
    write_webdataset,
)

from vla.config import ConfigError
from vla.data.pack import pack_from
from vla.data.packed import open_packed
from vla.data.verification import verify
from vla.errors import BadSample, DataError

SIZE = "source.mapping.size=16"


def quarantined(path: Path, **options: Any) -> list[dict[str, Any]]:
    """Rows of the quarantine after packing without bad samples."""
    out = path.parent / "packed"
    manifest = pack_from(path, out, [SIZE], skip_bad=True, max_bad=0.6, **options)
    rows: list[dict[str, Any]] = json.loads((out / "quarantine.json").read_text())
    assert manifest.quarantined == len(rows) and len(open_packed(out).index) == manifest.samples
    return rows


IMAGES = {
    "llava": (write_llava, "pictures/2.jpg"),
    "vqa": (write_vqa, "train2014/COCO_train2014_000000000002.jpg"),
    "coco": (write_coco, "val2017/000000000002.jpg"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_a_missing_image_is_one_bad_sample(name: str, tmp_path: Path) -> None:
    write, image = IMAGES[name]
    root = write(tmp_path / "data")
    (root / image).unlink()
    with pytest.raises(BadSample, match=r"data.*no image .*2.*in .*data.*source\.images"):
        pack_from(root, tmp_path / "out", [SIZE])
    (row,) = quarantined(root)
    assert row["index"] == 2 and row["file"].endswith(".json") and "no image" in row["reason"]
    notes = pack_from(root, tmp_path / "rest", [SIZE], skip_missing=True).notes
    absent = f"1 absent image of {len(NAMES) + (name == 'llava')} left out"
    assert notes == (*(["1 record of 7 without an image: text only"] * (name == "llava")), absent)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_corrupt_image_is_one_bad_sample(name: str, damage: str, tmp_path: Path) -> None:
    write, image = IMAGES[name]
    root = write(tmp_path / "data")
    file = root / image
    content = {"cut": file.read_bytes()[:300], "text": b"<html>not found</html>", "empty": b""}
    file.write_bytes(content[damage])
    with pytest.raises(BadSample, match=r"2\.jpg: unreadable image .*--skip-bad"):
        pack_from(root, tmp_path / "out", [SIZE])
    (row,) = quarantined(root)
    assert (row["index"], row["file"]) == (2, str(file))


def test_images_inside_tars_and_tables(tmp_path: Path) -> None:
    import pyarrow.parquet as pq
    from web_files import image_table

    tar = write_webdataset(tmp_path / "wds") / "00001.tar"
    data = tar.read_bytes()
    start = data.index(b"\xff\xd8", data.index(b"000004.jpg"))
    tar.write_bytes(data[: start + 20] + bytes(400) + data[start + 420 :])
    (row,) = quarantined(tmp_path / "wds")
    assert (row["index"] == 4 and "sample '000004'" in row["reason"]) or "000004" in row["reason"]
    table = image_table(NAMES, caption=["x"] * 6).to_pydict()
    table["image"][3] = {"bytes": b"nothing", "path": None}
    table["image"][4] = {"bytes": None, "path": "absent.png"}
    table["caption"][5] = ""
    (tmp_path / "hf").mkdir()
    import pyarrow as pa

    pq.write_table(pa.table(table), tmp_path / "hf" / "a.parquet")
    out = tmp_path / "hf_packed"
    pack_from(tmp_path / "hf", out, [SIZE], skip_bad=True, max_bad=0.6)
    rows = json.loads((out / "quarantine.json").read_text())
    assert [r["index"] for r in rows] == [3, 4, 5]
    reasons = [r["reason"] for r in rows]
    assert "unreadable image" in reasons[0] and "no image 'absent.png'" in reasons[1]
    assert "an empty answer" in reasons[2]


def test_a_tar_that_ends_early_keeps_its_whole_samples(tmp_path: Path) -> None:
    tar = write_webdataset(tmp_path / "wds") / "00001.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"00001\.tar: .*0000\d\d.*download it again"):
        pack_from(tmp_path / "wds", tmp_path / "out", [SIZE])
    assert "00001.tar" in quarantined(tmp_path / "wds")[-1]["file"]
    tar.write_bytes(b"version https://git-lfs.github.com/spec/v1\n" + bytes(600))
    with pytest.raises(DataError, match=r"00001\.tar: .*git lfs pull"):
        pack_from(tmp_path / "wds", tmp_path / "out", [SIZE])


def test_wrong_paths_name_what_was_searched(tmp_path: Path) -> None:
    root = write_llava(tmp_path / "llava")
    with pytest.raises(DataError, match="no such file or folder"):
        pack_from(tmp_path / "lava", tmp_path / "out", [])
    with pytest.raises(DataError, match=r"pics: no such folder of images; check source\.images"):
        pack_from(root, tmp_path / "out", [f"source.images={tmp_path / 'pics'}"])
    elsewhere = write_images(tmp_path / "elsewhere", "x{n}.jpg")
    with pytest.raises(DataError, match=r"no image 'pictures/0\.jpg' in .*none of the first 6"):
        pack_from(root, tmp_path / "out", [f"source.images={elsewhere}"])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"not a known robot data set.*or image-text data: vqa"):
        pack_from(empty, tmp_path / "out", [])
    assert not (tmp_path / "out").exists()


def test_formats_that_are_not_clear_are_named(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco", ("captions", "instances"))
    with pytest.raises(DataError, match=r"several formats \(coco_captions, coco_boxes\); choose"):
        pack_from(root, tmp_path / "out", [SIZE])
    with pytest.raises(DataError, match="no format 'coco_caption'; did you mean 'coco_captions'"):
        pack_from(root, tmp_path / "out", ["source.format=coco_caption"])
    assert pack_from(root, tmp_path / "out", [SIZE, "source.format=coco_boxes"]).samples == 6


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("answr=caption", r"source\.mapping\.answr: unknown key; did you mean 'answer'"),
        ("answer=anser", r"mapping\.answer: no column 'anser'; did you mean 'answer'"),
        ("prompt='{qestion}?'", r"mapping\.prompt='\{qestion\}\?': no column 'qestion'; did you"),
        ("prompt='{question'", r"mapping\.prompt='\{question': .*\{question\}"),
        ("image=picture", r"mapping\.image: no column 'picture'"),
        ("split=splt", r"mapping\.split: no column 'splt'"),
        ("labels=answer", r"mapping\.labels has no effect on answers; remove it"),
        ("boxes=answer", r"set source\.mapping\.box_format=xywh"),
        ("size=0", r"size: expected 1 to 4096, got 0"),
        ("fit=squeeze", r"fit: 'squeeze' is not allowed"),
    ],
)
def test_wrong_mappings_name_the_columns(override: str, message: str, tmp_path: Path) -> None:
    root = write_parquet(tmp_path / "hf")
    with pytest.raises((DataError, ConfigError), match=message):
        pack_from(root, tmp_path / "out", [f"source.mapping.{override}"])


def test_columns_without_usual_names_are_listed(tmp_path: Path) -> None:
    root = write_images(tmp_path / "data")
    write_json(root / "a.json", [{"image": f"{n}.jpg", "wort": "rot"} for n in range(6)])
    with pytest.raises(DataError, match=r"source\.mapping\.answer; columns are image, wort"):
        pack_from(root, tmp_path / "out", [SIZE])
    manifest = pack_from(root, tmp_path / "out", [SIZE, "source.mapping.answer=wort"])
    assert manifest.words["rot"] == 6


def test_absent_shards_of_a_table_are_a_gap(tmp_path: Path) -> None:
    root = write_parquet(tmp_path / "hf")
    (root / "data" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"train-\*-of-00002.* 1 of 2 files are absent; complete"):
        pack_from(root, tmp_path / "out", [SIZE])
    assert pack_from(root, tmp_path / "out", [SIZE], skip_missing=True).samples == 4


def test_damaged_annotations_are_one_error(tmp_path: Path) -> None:
    file = write_llava(tmp_path / "llava") / "llava_instruct.json"
    text = file.read_text()
    file.write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match=r"llava_instruct\.json: not JSON .*download it again"):
        pack_from(file, tmp_path / "out", [SIZE])
    root = write_vqa(tmp_path / "vqa")
    for part in root.glob("*annotations.json"):
        part.unlink()
    with pytest.raises(DataError, match="no annotations with question_id beside the questions"):
        pack_from(root, tmp_path / "out", [SIZE])


def test_turns_of_an_unknown_form_are_bad_samples(tmp_path: Path) -> None:
    root = write_images(tmp_path / "data")
    good = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    wrong = [good[::-1], [{"said": "x"}], [{"from": "human", "value": "q"}], "not JSON", None]
    rows = [{"image": f"{n}.jpg", "conversations": c} for n, c in enumerate([good, *wrong])]
    write_json(root / "a.json", rows)
    out = tmp_path / "out"
    pack_from(root, out, [SIZE], skip_bad=True, max_bad=0.9)
    reasons = [r["reason"] for r in json.loads((out / "quarantine.json").read_text())]
    assert len(reasons) == 5 and "an answer without a question" in reasons[0]
    assert "expected a list of turns, found 'not JSON'" in reasons[3]
    assert all("--skip-bad" in r and "record" in r for r in reasons)


def test_captions_without_an_image_are_bad_samples(tmp_path: Path) -> None:
    root = write_images(tmp_path / "data")
    rows = [{"image": f"{n}.jpg", "caption": "x"} for n in range(6)]
    rows[2]["image"] = ""
    write_json(root / "a.json", rows)
    (row,) = quarantined(root)
    assert row["index"] == 2 and "a.json" in row["file"] and "no image" in row["reason"]


def test_boxes_outside_the_image_are_bad_samples(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco", ("instances",))
    file = root / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [30, 10, 30, 10]
    content["annotations"][3]["bbox"] = [0, 0, float("nan"), 10]
    file.write_text(json.dumps(content))
    outside, nan = quarantined(root)
    assert "is outside its image of 40 x 30; check box_format" in outside["reason"]
    assert "not finite" in nan["reason"]


def test_checksums_force_and_changes_are_those_of_robot_data(tmp_path: Path) -> None:
    root, out = write_llava(tmp_path / "llava"), tmp_path / "out"
    first = pack_from(root, out, [SIZE])
    assert pack_from(root, out, [SIZE]) == first  # nothing is packed again
    with pytest.raises(DataError, match=r"other settings \(.*mapping\.history"):
        pack_from(root, out, [SIZE, "source.mapping.history=false"])
    write_images(root / "more")
    with pytest.raises(DataError, match=r"the source changed on disk .*new: more/0\.jpg"):
        pack_from(root, out, [SIZE])
    assert pack_from(root, out, [SIZE], force=True).samples == first.samples
    shard = out / "shard-000000.tar"
    shard.write_bytes(shard.read_bytes().replace(b"green", b"brown"))
    assert len(verify(out)) == 1
    with pytest.raises(DataError, match="is packed already"):
        pack_from(out, tmp_path / "again", [SIZE])
