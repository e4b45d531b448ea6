"""Reading one sample of a source; everything that fails there is a ``BadSample``."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

from vla.data.episode_check import check_episode
from vla.data.samples import episode_to_sample, web_to_sample
from vla.data.source import Source
from vla.errors import BadSample
from vla.types import Episode, WebSample

_T = TypeVar("_T")
# Errors of this machine, not of a sample: a full disk, a read-only disk, too many open files.
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE}
_ROW = re.compile(r"\b(?:row|step) (\d+)\b")
_REPAIR = "repair it, or skip bad episodes with --skip-bad"


def load_sample(source: Source, index: int) -> tuple[Episode | WebSample, dict[str, Any]]:
    """Sample ``index`` of a source, checked, and its parts for a shard.

    Decoding libraries raise errors of many types for damaged files. All of them become a
    ``BadSample`` with the original error as its cause.

    Raises:
        BadSample: the sample cannot be read, or would harm training.
    """

    def load() -> tuple[Episode | WebSample, dict[str, Any]]:
        item = source[index]
        if not isinstance(item, Episode):
            return item, web_to_sample(item)
        assert source.action_space is not None
        check_episode(item, source.action_space, len(source.state_names))
        return item, episode_to_sample(item)

    return attempt(load, source, index)


def attempt(read: Callable[[], _T], source: Source, index: int) -> _T:
    """What ``read`` returns, for a function that reads sample ``index``.

    Raises:
        BadSample: any error of a sample.
        OSError: an error of this machine, such as a full disk.
    """
    try:
        return read()
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _MACHINE:
            raise
        noun = "sample" if source.action_space is None else "episode"
        raise _bad(error, _location(source, index), f"{noun} {index}") from error


def quarantine_row(index: int, error: BadSample) -> dict[str, Any]:
    """One row of ``quarantine.json``; ``row`` is the first row or step that the reason names."""
    reason = str(error)
    found = _ROW.search(reason.removeprefix(error.file))
    row = int(found[1]) if found else None
    return {
        "index": index,
        "file": _printable(error.file),
        "row": row,
        "reason": _printable(reason),
    }


def _location(source: Source, index: int) -> str:
    try:
        return source.location(index)
    except Exception:  # the description of a damaged sample may be damaged too
        return ""


def _bad(error: Exception, location: str, name: str) -> BadSample:
    text = str(error)
    named = text.partition(": ")[0]  # messages of this package begin with the path
    if type(error).__module__ != "vla.errors":
        lines = text.strip().splitlines() or ["no message"]
        text = f"{name}: {type(error).__name__}: {lines[0][:300]}; {_REPAIR}"
    elif os.path.exists(named):  # noqa: PTH110  # Path.exists raises for a long text
        location = named
    if location and not text.startswith(location):
        text = f"{location}: {text}"
    bad = BadSample(text)
    bad.file = location
    return bad


def _printable(text: str) -> str:
    """The text without lone surrogates, which file names with invalid bytes have."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
