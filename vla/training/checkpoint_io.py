"""Checkpoint files that survive a kill at any moment and that show damage."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from vla.errors import DataError
from vla.utils.disk import writing
from vla.utils.io import atomic_file

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
_MARK = b"sha256:"
_RECORD = len(_MARK) + 64  # bytes at the end of the file; torch.load ignores them


class AtomicCheckpointIO(CheckpointIO):
    """Writes a checkpoint beside the old one, with a checksum, and renames it when it is whole.

    When a new ``last.ckpt`` is whole, the old one becomes ``previous.ckpt``, unless it is damaged.
    Lightning's own class writes to TMPDIR. If TMPDIR is on another file system, it then copies over
    the old file.
    """

    def __init__(self) -> None:
        self._wrote_last = False  # then the file is whole

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write the file.

        Raises:
            DataError: the disk is full, or the file cannot be written; the old file is unchanged.
        """
        path = Path(path)
        with writing(path), atomic_file(path) as file:
            writer = _HashingWriter(file)
            try:
                torch.save(checkpoint, writer)  # type: ignore[arg-type]  # torch only writes
            except RuntimeError:
                if writer.error is not None:  # torch hides the cause in a message of its own
                    raise writer.error from None
                raise
            file.write(_MARK + writer.digest.hexdigest().encode())
            file.flush()
            if path.name == LAST and path.is_file() and (self._wrote_last or is_whole(path)):
                os.fsync(file.fileno())
                path.replace(path.with_name(PREVIOUS))
        self._wrote_last = self._wrote_last or path.name == LAST

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read the file without executing code from it."""
        checkpoint: dict[str, Any] = torch.load(path, map_location, weights_only=True)
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete the file."""
        Path(path).unlink(missing_ok=True)


class _HashingWriter:
    """The file that ``torch.save`` writes to; it keeps the SHA-256 and the first error."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write the bytes and add them to the digest."""
        self.digest.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        """Do nothing, because ``atomic_file`` flushes."""


def is_whole(path: Path) -> bool:
    """True if the file has the checksum that was written with it."""
    left = path.stat().st_size - _RECORD
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while left > 0:
            block = file.read(min(left, 1 << 20))
            left -= len(block)
            digest.update(block)
        return left == 0 and file.read() == _MARK + digest.hexdigest().encode()


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run; None if it has none. A damaged file is named.

    Raises:
        DataError: all checkpoints are damaged.
    """
    present = [path for name in (LAST, PREVIOUS) if (path := folder / name).is_file()]
    damaged: list[Path] = []
    for path in present:
        if is_whole(path):
            for name in damaged:
                message = f"{name}: damaged (its checksum differs); {path} is used instead"
                print(message, file=sys.stderr, flush=True)
            return path
        damaged.append(path)
    if damaged:
        raise DataError(
            f"{damaged[0]}: damaged (its checksum differs), and there is no other checkpoint; "
            "delete it to train again from step 0"
        )
    return None


def checkpoint_step(path: Path) -> int:
    """The optimiser step of a checkpoint."""
    return int(torch.load(path, "cpu", weights_only=True, mmap=True)["global_step"])
