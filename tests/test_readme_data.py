"""The page "Your own data": its mapping is complete, and its reader example works."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY
from readme_examples import CODE
from web_files import NAMES, write_coco, write_images, write_json

from vla.config import check
from vla.data.mapping import Mapping
from vla.data.pack import PackConfig, pack_from
from vla.data.packed import open_packed
from vla.data.samples import read_json

PAGE = (REPOSITORY / "data" / "README.md").read_text(encoding="utf-8")
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import npz_reader
from pathlib import Path
from vla.data.pack import pack_from
manifest = pack_from(Path(sys.argv[2]), Path(sys.argv[3]), ["source.mapping.size=16"])
print(manifest.samples, manifest.steps, *manifest.cameras, *manifest.state_names)
"""


def pack_example(source: str) -> dict[str, Any]:
    """The configuration of ``vla pack`` on the page, with this source."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    found = [b for b in map(yaml.safe_load, blocks) if b.get("source", {}).get("name") == source]
    (example,) = found
    return example


def test_the_page_is_short() -> None:
    assert len(PAGE.split()) <= 2_300


def test_the_mapping_example_is_valid_and_has_all_common_options() -> None:
    example = pack_example("robot")
    config = check(example, PackConfig, "")
    assert config.shard_size == 20
    left_out = {f.name for f in fields(Mapping)} - set(example["source"]["mapping"])
    assert left_out == {"fps"}


def test_the_reader_example_packs_a_data_set(tmp_path: Path) -> None:
    code = CODE["vla/data/readers/npz.py"]
    (tmp_path / "npz_reader.py").write_text(code, encoding="utf-8")
    raw = tmp_path / "raw"
    raw.mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        np.savez(
            raw / f"{number}.npz",
            action=rng.normal(size=(5, 3)),
            state=rng.normal(size=(5, 2)),
            top=rng.integers(0, 256, (5, 16, 16, 3), dtype=np.uint8),
            task="wave",
        )
    arguments = [str(tmp_path), str(raw), str(tmp_path / "packed")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-5:] == ["2", "10", "top", "state_0", "state_1"]


def test_the_examples_with_images_and_texts_pack_such_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "chart_qa" / "png")
    rows = [{"imgname": f"{n}.jpg", "query": "q?", "label": c} for n, c in enumerate(NAMES)]
    write_json(tmp_path / "chart_qa" / "train.json", rows)
    Path("chart_qa.yaml").write_text(yaml.safe_dump(pack_example("web_data")), encoding="utf-8")
    write_coco(tmp_path / "coco", ("captions", "instances"))
    commands = [c.split()[2:] for c in PAGE.splitlines() if c.startswith("vla pack c")]
    assert len(commands) == 2
    for source, out, *overrides in commands:
        manifest = pack_from(Path(source), Path(out), overrides)
        assert (manifest.samples, manifest.image_size) == (len(NAMES), (128, 128))
    sample = next(open_packed("data/charts").samples())
    assert read_json(sample)["qa"][0]["question"] == "q? answer briefly."
    sample = next(open_packed("data/boxes").samples())
    assert read_json(sample)["qa"][0]["question"] == "where is the dog?"
