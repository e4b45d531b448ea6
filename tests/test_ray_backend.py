"""Packing on a Ray cluster gives the same shards as packing without Ray."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from robot_files import write_folder

from vla.data.mapping import Mapping
from vla.data.pack import pack
from vla.data.robot import RobotSource
from vla.errors import ConfigError, DataError

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("default")  # Ray itself warns


@pytest.mark.slow
def test_ray_packs_the_same_bytes_from_relative_paths_and_reports_bad_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(Path("raw"), (5, 8, 3, 6))
    source = RobotSource("raw", Mapping(size=32))
    here = pack(source, "here", 1, 0.3, False)
    there = pack(source, "there", 1, 0.3, False, workers=2, ray="local")
    assert here == there
    for name in [s.name for s in here.shards]:
        a, b = (
            hashlib.sha256((tmp_path / d / name).read_bytes()).hexdigest()
            for d in ("here", "there")
        )
        assert a == b
    for broken in sorted(Path("raw").rglob("*.png"))[:1]:
        broken.write_bytes(b"no image")
    with pytest.raises(DataError, match="png"):
        pack(source, "broken", 1, 0.3, False, workers=2, ray="local")
    assert not Path("broken/manifest.json").exists()
    left = pack(
        source, "left_out", 1, 0.3, False, workers=2, skip_bad=True, max_bad=0.5, ray="local"
    )
    assert left.quarantined == 1 and left.samples == 3


def test_an_unreachable_cluster_is_an_error(tmp_path: Path) -> None:
    source = RobotSource(str(write_folder(tmp_path / "raw", (2,))), Mapping(size=32))
    with pytest.raises(ConfigError, match=r"--ray 127\.0\.0\.1:1: no cluster there"):
        pack(source, tmp_path / "out", 1, 0.0, False, ray="127.0.0.1:1")
