"""A function in a child process: a crash or a slow call does not stop the parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_WAIT = 30  # a child that does not compute is ended after this multiple of the CPU time


class ChildFailed(RuntimeError):
    """A child process that gave no result; the message has the reason."""


def call_in_child(function: Callable[[], Any], seconds: int) -> Any:
    """Result of ``function``, computed with one thread by a forked process.

    The child has all modules that the parent imported, so it starts quickly. If memory is short,
    the kernel ends the child and not the parent.

    Args:
        function: returns an object that can be pickled.
        seconds: limit of the child's CPU time, s.

    Raises:
        ChildFailed: the time is over, the process ended, or ``function`` raised an error.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(function, sender, seconds), daemon=True)
    child.start()
    sender.close()
    try:
        if not receiver.poll(_WAIT * seconds):
            raise ChildFailed(f"no result after {_WAIT * seconds} s")
        error, result = receiver.recv()
    except EOFError:
        child.join()
        raise ChildFailed(_end(child.exitcode or 0, seconds)) from None
    finally:
        child.kill()
        child.join()
        receiver.close()
    if error:
        raise ChildFailed(error)
    return result


def _run(function: Callable[[], Any], sender: Connection, seconds: int) -> None:
    """Send (error, result) of ``function`` to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # Linux only
        Path("/proc/self/oom_score_adj").write_text("1000")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # a forked process has no pool of threads
    try:
        sender.send(("", function()))
    except Exception as error:  # the parent raises it
        sender.send((f"{type(error).__name__}: {error}", None))


def _end(code: int, seconds: int) -> str:
    if code == -signal.SIGXCPU:
        return f"more than {seconds} s of CPU time"
    if code == -signal.SIGKILL:
        return "the process was killed, probably because memory was short"
    return f"the process ended with {signal.Signals(-code).name if code < 0 else f'status {code}'}"
