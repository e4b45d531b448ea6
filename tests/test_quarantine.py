"""One boundary around everything that decodes: any exception is one bad episode."""

from __future__ import annotations

import errno
import json
import struct
import zlib
from pathlib import Path

import pytest
from memory_data import MemorySource, make_episode
from PIL import Image

from vla.data.pack import pack
from vla.errors import BadSample, DataError
from vla.types import Episode

ERRORS = [
    Image.DecompressionBombError("Image size (400000000 pixels) exceeds limit"),
    zlib.error("Error -3 while decompressing data"),
    struct.error("unpack requires a buffer of 8 bytes"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    KeyError("observation"),
    IndexError("list index out of range"),
    RuntimeError("Unable to synchronously open object\nsecond line"),
    MemoryError("Unable to allocate 7.0 TiB"),
    RecursionError("maximum recursion depth exceeded"),
    EOFError(),
    Image.UnidentifiedImageError("cannot identify image file"),
    FileNotFoundError(errno.ENOENT, "No such file or directory", "b.png"),
    AttributeError("'NoneType' object has no attribute 'shape'"),
]


class Damaged(MemorySource):
    """Reading sample ``index`` raises an error."""

    def __init__(self, errors: dict[int, Exception], count: int = 20) -> None:
        super().__init__([make_episode(i) for i in range(count)])
        self.errors = errors

    def __getitem__(self, index: int) -> Episode:
        if index in self.errors:
            raise self.errors[index]
        return self.episodes[index]

    def location(self, index: int) -> str:
        return f"raw/episode_{index}.h5"


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_any_exception_is_one_line_with_its_cause(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(BadSample, match=r"raw/episode_3\.h5: episode 3: \w+") as caught:
        pack(Damaged({3: error}), tmp_path / "out", progress=False)
    message = str(caught.value)
    assert type(error).__name__ in message and "--skip-bad" in message and "\n" not in message
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_bad_episodes_are_quarantined_with_file_and_reason(workers: int, tmp_path: Path) -> None:
    source = Damaged(dict(enumerate(ERRORS)), 30)
    file = tmp_path / "step 7.csv"
    file.write_text("")
    known = DataError(f"{file}: episode 20, row 4: not a number; repair it")
    source.errors[20] = known
    source.episodes[21].actions = source.episodes[21].actions[:, :1]
    manifest = pack(
        source, tmp_path / "out", 4, progress=False, workers=workers, skip_bad=True, max_bad=0.6
    )
    rows = json.loads((tmp_path / "out/quarantine.json").read_text())
    assert [r["index"] for r in rows] == [*range(len(ERRORS)), 20, 21]
    assert manifest.quarantined == len(rows) and manifest.samples == 30 - len(rows)
    assert rows[0]["file"] == "raw/episode_0.h5" and "DecompressionBomb" in rows[0]["reason"]
    assert (rows[-2]["file"], rows[-2]["row"]) == (str(file), 4)
    assert rows[-2]["reason"] == str(known)
    assert "episode_21.h5: episode '0000021': actions have shape (5, 1)" in rows[-1]["reason"]


def test_a_source_whose_samples_are_all_bad_is_an_error_with_the_first_reason(
    tmp_path: Path,
) -> None:
    source = Damaged({n: KeyError("action") for n in range(3)}, 3)
    with pytest.raises(DataError, match=r"3 of 3 samples are bad.*first: .*KeyError: 'action'"):
        pack(source, tmp_path, progress=False, skip_bad=True, max_bad=1.0)


def test_errors_of_the_machine_are_not_quarantined(tmp_path: Path) -> None:
    source = Damaged({2: OSError(errno.EMFILE, "Too many open files")})
    with pytest.raises(DataError, match=r"Too many open files"):
        pack(source, tmp_path, progress=False, skip_bad=True)
    assert not (tmp_path / "quarantine.json").exists()
