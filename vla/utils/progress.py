"""Progress of long work on stderr: a bar on a terminal, else a plain line every 30 seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from datetime import timedelta
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import ProgressColumn

INTERVAL = 30.0  # seconds between two lines where stderr is not a terminal

_T = TypeVar("_T")


class Progress:
    """A context manager that reports finished items.

    Args:
        title: the work, for example ``pack data/mine``.
        total: number of items; None: unknown.
        unit: plural noun of the items, for example ``episodes``.
        done: items that an earlier call finished.
        show: False: report nothing.
    """

    def __init__(
        self,
        title: str,
        total: int | None = None,
        unit: str = "",
        done: int = 0,
        show: bool = True,
    ) -> None:
        self.title, self.total, self.unit, self.done, self.show = title, total, unit, done, show
        self.first = done  # items that do not count for the rate
        self.began = self.printed = time.monotonic()
        self.shown = -1  # finished items in the last line; -1: no line yet
        self.note = ""  # text at the end of the line, for example the loss
        self.bar: Bar | None = None

    def __enter__(self) -> Progress:
        if self.show and sys.stderr.isatty():
            columns: tuple[str | ProgressColumn, ...] = (
                *Bar.get_default_columns(),
                "{task.fields[count]}",
            )
            self.bar = Bar(*columns, console=Console(stderr=True))
            self.task = self.bar.add_task(self.title, total=self.total, count=self._count())
            self.bar.start()
            self.bar.update(self.task, completed=self.done)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
        elif self.shown not in (-1, self.done) and kind is None:
            self._print()

    def advance(self, items: int = 1) -> None:
        """Count finished items."""
        self.done += items
        if self.bar is not None:
            text = f"{self._count()}, {self._rate():.3g}/s  {self.note}"
            self.bar.update(self.task, completed=self.done, count=text.strip())
        elif self.show and time.monotonic() - self.printed >= INTERVAL:
            self._print()

    def _count(self) -> str:
        total = "" if self.total is None else f"/{self.total}"
        return f"{self.done}{total} {self.unit}".strip()

    def _rate(self) -> float:
        """Items per second of this call."""
        return (self.done - self.first) / max(time.monotonic() - self.began, 1e-9)

    def line(self) -> str:
        """The progress as one line: title, count, rate, remaining time and note."""
        rate = self._rate()
        text = f"{self.title}: {self._count()}, {rate:.3g}/s"
        if self.total is not None and rate > 0:
            left = timedelta(seconds=round(max(0, self.total - self.done) / rate))
            text += f", ETA {left}"
        return f"{text}, {self.note}" if self.note else text

    def _print(self) -> None:
        self.printed = time.monotonic()
        self.shown = self.done
        print(self.line(), file=sys.stderr, flush=True)


def track(
    items: Iterable[_T], title: str, total: int | None = None, unit: str = "", show: bool = True
) -> Iterator[_T]:
    """The items, with progress after each one; ``total`` is their number if they have a length."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(title, total, unit, show=show) as progress:
        for item in items:
            yield item
            progress.advance()
