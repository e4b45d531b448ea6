"""RLDS: places and encodings of texts and images."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rlds_files import STEPS, encoded, image, seen, shot, tensor, text
from rlds_files import write_rlds_steps as write

from vla.data.images import decode_image
from vla.data.mapping import Mapping
from vla.data.readers import open_reader
from vla.data.robot import RobotSource
from vla.errors import DataError


def source(root: Path, **options: Any) -> RobotSource:
    return RobotSource(str(root), Mapping(size=24, fps=5, **options))


def frames(source: RobotSource, index: int, camera: str = "image") -> list[tuple[int, int]]:
    return [seen(decode_image(f, "")) for f in source[index].images[camera]]


@pytest.mark.parametrize("key", ["language_instruction", "task", "natural_language_instruction"])
def test_a_text_of_the_episode_is_its_instruction(key: str, tmp_path: Path) -> None:
    said = ["fold the towel", "öffne die Tür"]
    more = [{f"episode_metadata/{key}": ([s.encode()], "byte")} for s in said]
    root = write(tmp_path / "d", more, metadata={key: text(), "file_path": text()})
    assert [source(root)[e].instruction for e in range(2)] == said
    named = source(root, instruction=f"{{{key}}} slowly")
    assert named[0].instruction == "fold the towel slowly"
    assert source(root, instruction=f"episode_metadata/{key}")[1].instruction == said[1]


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int64"])
@pytest.mark.parametrize("per_episode", [False, True])
def test_texts_as_byte_values_are_decoded(dtype: str, per_episode: bool, tmp_path: Path) -> None:
    said = "push the red star, größer".encode()
    codes = list(said.ljust(48, b"\0"))
    codes = codes if per_episode else codes * STEPS
    place = "episode_metadata/instruction" if per_episode else "steps/instruction"
    feature = {"instruction": tensor(dtype, 48)}
    root = write(
        tmp_path / "d",
        [{place: (codes, "int")}],
        None if per_episode else feature,
        feature if per_episode else None,
    )
    assert source(root)[0].instruction == "push the red star, größer"
    assert "steps/instruction" not in [n for n, _ in source(root).mapping.action.parts]


def test_a_vector_of_numbers_is_not_taken_for_a_text(tmp_path: Path) -> None:
    feature = {"language_embedding": tensor("float32", 8), "task_id": tensor("int32")}
    numbers = {
        "steps/language_embedding": ([0.5] * 8 * STEPS, "float"),
        "steps/task_id": ([3] * STEPS, "int"),
    }
    reader = open_reader(write(tmp_path / "d", [numbers], feature))
    assert reader.fields["steps/language_embedding"].kind == "numbers"
    assert reader[0].numbers["steps/task_id"].tolist() == [[3.0]] * STEPS
    assert reader[0].instruction == ""


def test_an_instruction_that_changes_within_an_episode_is_kept_per_step(tmp_path: Path) -> None:
    said = ["open"] * 2 + ["close"] * 4
    more = {"steps/language_instruction": ([s.encode() for s in said], "byte")}
    root = write(tmp_path / "d", [more], {"language_instruction": text()})
    assert source(root)[0].instructions == said
    assert source(root)[0].instruction == "open"


def test_of_several_instructions_the_first_with_a_text_counts(tmp_path: Path) -> None:
    names = ["language_instruction", "language_instruction_2", "language_instruction_3"]
    more = {f"steps/{n}": ([b""] * STEPS, "byte") for n in names}
    more["steps/language_instruction_2"] = ([b"wipe"] * STEPS, "byte")
    root = write(tmp_path / "d", [more], {n: text() for n in names})
    assert source(root)[0].instruction == "wipe"


@pytest.mark.parametrize("kind", ["int", "raw", "zlib", "channels first", "float"])
def test_images_that_are_declared_as_tensors_are_images(kind: str, tmp_path: Path) -> None:
    root, shots = tmp_path / "d", [shot(0, t) for t in range(STEPS)]
    feature = {"photo": tensor("uint8", 24, 32, 3)}
    values: Any = ([v for s in shots for v in s.ravel().tolist()], "int")
    if kind == "raw":
        values = ([s.tobytes() for s in shots], "byte")
    elif kind == "zlib":
        feature = {"photo": tensor("uint8", 24, 32, 3, encoding="zlib")}
        values = ([zlib.compress(s.tobytes()) for s in shots], "byte")
    elif kind == "channels first":
        feature = {"photo": tensor("uint8", 3, 24, 32)}
        values = ([v for s in shots for v in s.transpose(2, 0, 1).ravel().tolist()], "int")
    elif kind == "float":
        feature = {"photo": tensor("float32", 24, 32, 3)}
        values = ([v for s in shots for v in (s.ravel() / 255).tolist()], "float")
    write(root, [{"steps/photo": values}], feature)
    assert frames(source(root), 0, "photo") == [(0, t) for t in range(STEPS)]


def test_byte_strings_that_are_images_are_images(tmp_path: Path) -> None:
    values = [encoded(shot(0, t), "JPEG") for t in range(STEPS)]
    root = write(tmp_path / "d", [{"steps/cam": (values, "byte")}], {"cam": tensor("string")})
    found = source(root)
    assert frames(found, 0, "cam") == [(0, t) for t in range(STEPS)]
    assert any("byte strings that are images: steps/cam" in n for n in found.notes)


@pytest.mark.parametrize(
    "feature",
    [image(24, 32, 1, dtype="uint16"), image(24, 32, 1, dtype="float32"), tensor("uint16", 24, 32)],
)
def test_depth_is_no_default_camera(feature: dict[str, Any], tmp_path: Path) -> None:
    deep = np.linspace(400, 1200, 24 * 32, dtype=np.uint16).reshape(24, 32)
    values: Any = ([encoded(deep)] * STEPS, "byte")
    if "tensor" in feature:
        values = (deep.ravel().tolist() * STEPS, "int")
    root = write(tmp_path / "d", [{"steps/far": values}], {"far": feature})
    assert open_reader(root).fields["steps/far"].depth
    assert list(source(root)[0].images) == ["image"]


def test_features_without_a_fixed_size_are_left_out_and_said(tmp_path: Path) -> None:
    ragged = {"pythonClassName": "x.Sequence", "sequence": {"feature": tensor("float32", 3)}}
    points = tensor("float32", -1, 3)
    several = tensor("string", 4)
    root = write(tmp_path / "d", [{}], {"boxes": ragged, "points": points, "tags": several})
    found = source(root)
    assert len(found[0].actions) == STEPS
    (note,) = [n for n in found.notes if "no fixed size" in n]
    assert all(f"steps/{n}" in note for n in ("boxes", "points", "tags"))


def test_a_feature_without_data_is_left_out_and_said(tmp_path: Path) -> None:
    more = {"steps/unused": ([b""] * STEPS, "byte")}
    root = write(tmp_path / "d", [more], {"unused": image(8, 8, 3), "gone": tensor("float32", 4)})
    found = source(root)
    assert list(found[0].images) == ["image"]
    assert any("without data: steps/unused, steps/gone" in n for n in found.notes)


def test_damage_of_an_unused_feature_does_not_matter(tmp_path: Path) -> None:
    more = [{"steps/extra": ([0.0] * n, "float")} for n in (STEPS, STEPS - 1)]
    root = write(tmp_path / "d", more, {"extra": tensor("float32")})
    assert len(source(root)[1].actions) == STEPS
    with pytest.raises(DataError, match=r"episode 1: 'steps/extra' has 5 numbers for 6 steps"):
        source(root, state=["steps/extra"])[1]
