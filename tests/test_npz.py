"""npz files: equal to numpy's reading, refused before allocation if implausible."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vla.errors import DataError
from vla.utils.npz import open_npz

ARRAYS: dict[str, Any] = {
    "floats": np.arange(12, dtype=np.float32).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(12).reshape(3, 4)),
    "scalar": np.array(3.5),
    "texts": np.array(["a", "öl"]),
    "empty": np.zeros((0, 3)),
    "big_endian": np.arange(4, dtype=">i2"),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_equal_to_those_that_were_saved(save: Any, tmp_path: Path) -> None:
    save(tmp_path / "a.npz", **ARRAYS, zeros=np.zeros((500, 500)))
    with open_npz(tmp_path / "a.npz") as arrays:
        assert set(arrays) == {*ARRAYS, "zeros"}
        for name, values in ARRAYS.items():
            assert np.array_equal(arrays[name], values) and arrays[name].dtype == values.dtype
            assert arrays.header(name) == (values.shape, values.dtype)


def forged(shape: tuple[int, ...], content: bytes = b"") -> io.BytesIO:
    """An npz file whose array declares a shape that its bytes do not have."""
    member = io.BytesIO()
    about = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, about)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", member.getvalue() + content)
    stream.seek(0)
    return stream


@pytest.mark.parametrize(("shape", "content"), [((1 << 40,), b""), ((2,), b"\0" * 8)])
def test_implausible_sizes_are_refused(shape: tuple[int, ...], content: bytes) -> None:
    with (
        open_npz(forged(shape, content), "sample 7") as arrays,
        pytest.raises(DataError, match=r"sample 7: a .*needs \d+ bytes"),
    ):
        arrays["a"]


def test_pickled_objects_and_damage_are_one_message(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array([{"x": 1}], dtype=object))
    with (
        pytest.raises(DataError, match=r"a\.npz: a has pickled objects"),
        open_npz(tmp_path / "a.npz") as arrays,
    ):
        arrays["a"]
    np.savez(tmp_path / "b.npz", a=np.arange(100))
    whole = bytearray((tmp_path / "b.npz").read_bytes())
    whole[300] ^= 0xFF
    (tmp_path / "b.npz").write_bytes(bytes(whole))
    with (
        pytest.raises(DataError, match=r"b\.npz: damaged npz file"),
        open_npz(tmp_path / "b.npz") as arrays,
    ):
        arrays["a"]
    (tmp_path / "c.npz").write_bytes(bytes(whole[:200]))
    with pytest.raises(DataError, match=r"c\.npz: damaged npz file"), open_npz(tmp_path / "c.npz"):
        pass
    with pytest.raises(DataError, match=r"d\.npz: missing"), open_npz(tmp_path / "d.npz"):
        pass


def test_many_large_arrays_from_few_bytes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "a.npz", **{f"a{n}": np.zeros(200_000) for n in range(5)})
    with open_npz(tmp_path / "a.npz") as arrays:
        assert len(arrays) == 5
    monkeypatch.setattr("vla.utils.npz.SMALL", 1 << 20)
    with pytest.raises(DataError, match="implausible"), open_npz(tmp_path / "a.npz"):
        pass
