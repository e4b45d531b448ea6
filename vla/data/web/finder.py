"""Image files by the names or numbers that annotations have."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from vla.errors import BadSample, DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
# Folders of annotations, beside which the folders of the images are.
_ANNOTATIONS = ("annotations", "annotation", "questions", "labels", "texts", "json", "jsons")
_NUMBER = re.compile(r"(\d+)$")


class ImageFinder:
    """Finds images below some folders.

    A name is a path relative to one of the folders, or the name of a file anywhere below them,
    with or without suffix.

    Args:
        path: file or folder of the annotations.
        images: folder of the images; None: the folder of the annotations, or the one above if its
            name says that it has annotations only.

    Raises:
        DataError: ``images`` is no folder.
    """

    def __init__(self, path: Path, images: Path | None) -> None:
        if images is not None and not images.is_dir():
            raise DataError(f"{images}: no such folder of images; check source.images")
        folder = path if path.is_dir() else path.parent
        folders = [folder]
        if folder.name.lower() in _ANNOTATIONS:
            folders.append(folder.absolute().parent)
        self.folders = [images] if images is not None else folders

    def find(self, name: str, where: str, prefer: str = "") -> Path:
        """The file of an image.

        Args:
            name: file name, path or number, as the annotations have it.
            where: begins the error message.
            prefer: part of the path that decides between several files of a name.

        Raises:
            BadSample: no such file, or several ones.
        """
        if "://" in name:
            raise BadSample(
                f"{where}: the image {name!r} is an address; download the images, and name their "
                "folder with source.images"
            )
        found = self._direct(name)
        if found is not None:
            return found
        files = self._by_name.get(Path(name).name) or self._by_name.get(Path(name).stem) or []
        if not files and name.isdecimal():
            files = self._by_number.get(int(name), [])
        if len(files) > 1 and prefer:
            files = [f for f in files if prefer in str(f)] or files
        if len(files) > 1:
            files = [f for f in files if str(f).endswith(os.sep + name)] or files
        if len(files) == 1:
            return files[0]
        if files:
            listed = ", ".join(map(str, files[:2]))
            raise BadSample(
                f"{where}: {len(files)} images are called {name!r} ({listed}); "
                "give the folder of the right ones with source.images"
            )
        folders, name = " and ".join(map(str, self.folders)), name[:200]
        raise BadSample(
            f"{where}: no image {name!r} in {folders}; complete the download, give the folder of "
            "the images with source.images, or leave these images out with --skip-missing"
        )

    def exists(self, name: str, prefer: str = "") -> bool:
        """True if ``find`` finds exactly one file."""
        try:
            return bool(self.find(name, "", prefer))
        except BadSample:
            return False

    def check_some(self, names: Sequence[str], path: Path, prefer: str = "") -> None:
        """Refuse a data set of whose first image names none is found.

        Raises:
            DataError: none of the names is found.
        """
        some = list(names[:20])
        if some and not any(self.exists(name, prefer) for name in some):
            try:
                self.find(some[0], str(path), prefer)
            except BadSample as error:
                raise DataError(f"{error} (none of the first {len(some)} images exists)") from error

    def _direct(self, name: str) -> Path | None:
        for folder in self.folders:
            try:
                if (folder / name).is_file():
                    return folder / name
            except (OSError, ValueError):  # too long, or with a null character
                return None
        return None

    @cached_property
    def _files(self) -> list[Path]:
        found: dict[Path, None] = {}
        for folder in self.folders:
            for root, folders, names in os.walk(folder):
                folders[:] = sorted(f for f in folders if not f.startswith("."))
                for name in sorted(names):
                    if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                        found[Path(root, name)] = None
        return list(found)

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        files: dict[str, list[Path]] = {}
        for file in self._files:
            for name in {file.name, file.stem}:
                files.setdefault(name, []).append(file)
        return files

    @cached_property
    def _by_number(self) -> dict[int, list[Path]]:
        """Files by the number at the end of their stem, such as COCO's image ids."""
        files: dict[int, list[Path]] = {}
        for file in self._files:
            if number := _NUMBER.search(file.stem):
                files.setdefault(int(number[1]), []).append(file)
        return files
