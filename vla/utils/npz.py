"""Arrays in npz files, checked against the sizes in the zip file before memory is allocated."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from vla.errors import DataError

MAX_BYTES = 1 << 31  # of one array
SMALL = 1 << 28  # bytes of all arrays up to which any compression is accepted
_MAX_TOTAL_RATIO = 100  # of the size of larger ones to the compressed size; images reach about 50
_MAX_RATIO = 1100  # of an array's size to its compressed size; deflate reaches about 1030


class NpzArrays(Mapping[str, np.ndarray]):
    """The arrays of an npz file by name; each is read and checked at every access.

    Raises:
        DataError: an array has pickled objects, or another size than the zip file.
    """

    def __init__(self, archive: zipfile.ZipFile, where: str) -> None:
        self._archive, self._where = archive, where
        self._members = {
            info.filename.removesuffix(".npy"): info
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, name: str) -> np.ndarray:
        with self._archive.open(self._members[name]) as stream:
            shape, fortran, dtype = self._header(stream, name)
            data = stream.read(math.prod(shape) * dtype.itemsize)
            stream.read(1)  # to the end, where zipfile compares the checksum
        values = np.frombuffer(data, dtype)
        return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """(shape, type) of an array, without its values."""
        with self._archive.open(self._members[name]) as stream:
            shape, _, dtype = self._header(stream, name)
        return shape, dtype

    def _header(self, stream: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
        version = np.lib.format.read_magic(stream)  # type: ignore[no-untyped-call]
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)  # type: ignore[no-untyped-call]
        if dtype.hasobject:
            raise DataError(f"{self._where}: {name} has pickled objects, which are not read")
        info, size = self._members[name], math.prod(shape) * dtype.itemsize
        if size != info.file_size - stream.tell() or size > MAX_BYTES:
            raise DataError(
                f"{self._where}: {name} of shape {shape} needs {size} bytes, the file has "
                f"{info.file_size - stream.tell()} (at most {MAX_BYTES}); write the file again"
            )
        if size > _MAX_RATIO * max(info.compress_size, 1024):
            raise DataError(
                f"{self._where}: {name} needs {size} bytes from {info.compress_size} compressed "
                "ones, which is implausible; write the file again"
            )
        return shape, fortran, dtype


def _check_total(archive: zipfile.ZipFile, where: str) -> None:
    """Refuse small files that expand to many large arrays."""
    size = sum(info.file_size for info in archive.infolist())
    compressed = sum(info.compress_size for info in archive.infolist())
    if size > max(SMALL, _MAX_TOTAL_RATIO * compressed):
        raise DataError(
            f"{where}: its arrays need {size} bytes from {compressed} compressed ones, which is "
            "implausible; write the file again"
        )


@contextmanager
def open_npz(file: Path | IO[bytes], where: str = "") -> Iterator[NpzArrays]:
    """The arrays of an npz file.

    Args:
        file: a path, or a stream that can seek.
        where: how error messages begin; default: the path.

    Raises:
        DataError: the file is missing or damaged, or an array's size is implausible.
    """
    where = where or str(file)
    try:
        with zipfile.ZipFile(file) as archive:
            _check_total(archive, where)
            yield NpzArrays(archive, where)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{where}: missing; download the whole data set") from error
    except Exception as error:  # zipfile and zlib raise many classes for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{where}: damaged npz file ({reason}); write it again") from error
