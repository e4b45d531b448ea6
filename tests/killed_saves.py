"""Train a run that is killed with SIGKILL inside ten of its saves; prints what each kill leaves.

Each start is a fork of this process, so that libraries are imported once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vla.config import load_config
from vla.training import checkpoint_io
from vla.training.checkpoint_io import LAST, AtomicCheckpointIO, checkpoint_step, latest_checkpoint
from vla.training.run import RunConfig, train

KILLS = 10


class Saves:
    """Counts the system calls of each save; ends the process before or within the one at ``point``.

    The point has the number of the save, from 1, the name of the call, and its number in the save.
    """

    def __init__(self) -> None:
        self.point, self.save = (0, "", 0), 0
        self.calls, self.inside = Counter[str](), False
        writer = checkpoint_io._HashingWriter
        os.replace = self.counted("replace", os.replace)
        os.fsync = self.counted("fsync", os.fsync)
        writer.write = self.counted("write", writer.write)  # type: ignore[method-assign]
        self.original = AtomicCheckpointIO.save_checkpoint
        AtomicCheckpointIO.save_checkpoint = self.saved  # type: ignore[method-assign]

    def counted(self, name: str, function: Callable[..., Any]) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls[name] += self.inside
            if self.inside and self.point == (self.save, name, self.calls[name]):
                if name == "write":
                    writer, data = arguments
                    writer.file.write(data[: len(data) // 2])
                    writer.file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    @property
    def saved(self) -> Any:
        def save(*arguments: Any, **options: Any) -> None:
            self.save, self.inside = self.save + 1, True
            self.calls.clear()
            self.original(*arguments, **options)
            self.inside = False

        return save


def start(config: RunConfig, saves: Saves, *point: Any) -> int:
    """The wait status of a start that is killed at the point."""
    child = os.fork()
    if child == 0:
        saves.save, saves.point = 0, point or saves.point
        try:
            train(config, progress=False)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def main(whole: str, killed: str) -> None:
    configs = [load_config(path, [], RunConfig) for path in (whole, killed)]
    saves = Saves()
    train(configs[0], progress=False)
    calls = saves.calls
    draw = random.Random(0)
    points = [(name, n + 1) for name in ("replace", "fsync") for n in range(calls[name])]
    writes = draw.sample(range(1, calls["write"] + 1), KILLS - len(points))
    points += [("write", nth) for nth in writes]
    folder = Path(configs[1].output_dir)
    for name, nth in draw.sample(points, KILLS):
        status = start(configs[1], saves, draw.randint(2, 3), name, nth)
        found = latest_checkpoint(folder)
        size = (folder / LAST).stat().st_size if (folder / LAST).exists() else None
        step = None if found is None else checkpoint_step(found)
        row = {"at": f"{name} {nth}", "signal": os.WTERMSIG(status), "size": size, "step": step}
        print(json.dumps(row), flush=True)
    assert start(configs[1], saves) == 0


if __name__ == "__main__":
    main(*sys.argv[1:])
