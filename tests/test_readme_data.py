"""The page "Your own data": its mapping is complete, and its reader example works."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import yaml
from conftest import REPOSITORY
from readme_examples import CODE

from vla.config import check
from vla.data.mapping import Mapping
from vla.data.pack import PackConfig

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


def test_the_page_is_short() -> None:
    assert len(PAGE.split()) <= 2_100


def test_the_mapping_example_is_valid_and_has_all_common_options() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    example = next(b for b in map(yaml.safe_load, blocks) if "source" in b)
    config = check(example, PackConfig, "")
    assert config.shard_size == 20
    left_out = {f.name for f in fields(Mapping)} - set(example["source"]["mapping"])
    assert left_out == {"fps", "plan"}


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
