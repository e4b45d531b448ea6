"""The error boundary of the command line: an exception becomes one line and an exit code.

0 success; 1 the verb's own negative result; 2 a mistake in the input; 70 a defect of this package;
130 Ctrl-C.
"""

from __future__ import annotations

import _thread
import errno
import os
import re
import signal
import sys
import sysconfig
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any, NoReturn

import vla
from vla.errors import TrainingInterrupted

INPUT_ERROR, DEFECT, INTERRUPTED = 2, 70, 130
AGAIN = 0.05  # seconds until an interrupt that Python discarded is sent again
_RESUMABLE = ("pack", "record", "train", "demo", "scale", "study")  # a repeated call continues
_PACKAGE = str(Path(vla.__file__).parent)
_LIBRARIES = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")} - {_PACKAGE}
)
# Packages whose own exceptions describe a bad file, a bad option or a missing service.
_INPUT_PACKAGES = {
    *("omegaconf", "yaml", "json", "pydantic", "pydantic_core", "safetensors", "huggingface_hub"),
    *("httpx", "requests", "urllib3", "gymnasium", "submitit", "ray", "grpc", "h5py", "pyarrow"),
    *("av", "PIL", "zipfile", "tarfile", "pickle", "_pickle", "zlib", "lzma", "simplejpeg"),
    *("tokenizers", "zarr", "mcap", "filelock", "socket", "click", "typer"),
}
_FULL = re.compile(r"no space left|PytorchStreamWriter failed|inline_container\.cc|quota", re.I)
_OS_ADVICE = {
    errno.ENOENT: "no such file or folder; check the path",
    errno.EISDIR: "is a folder, a file is expected",
    errno.ENOTDIR: "a part of the path is a file, a folder is expected",
    errno.EEXIST: "exists already; choose another path or delete it",
    errno.EACCES: "permission denied; change the permissions or choose another folder",
    errno.EPERM: "permission denied; change the permissions or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EMFILE: "too many open files; raise the limit with `ulimit -n 4096`",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter path",
    errno.EADDRINUSE: "the address is in use; stop the other server or choose another --port",
}


def run(call: Callable[[], Any]) -> NoReturn:
    """Call the command line and exit. No exception leaves this function except SystemExit.

    ``VLA_DEBUG=1`` prints the traceback before the line.
    """
    with _interrupts() as interrupted:
        try:
            try:
                call()
            finally:
                sys.stdout.flush()  # here, so that a closed pipe is noticed before the exit
        except SystemExit as stop:
            if interrupted or stop.code == INTERRUPTED:  # typer exits silently after Ctrl-C
                _stop(_interruption(), INTERRUPTED)
            raise
        except TrainingInterrupted as stop:
            _stop(f"interrupted: {stop}", INTERRUPTED)
        except BrokenPipeError:  # the reader of the output ended, as in `vla zoo | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except BaseException as error:
            if interrupted or isinstance(error, KeyboardInterrupt):
                _stop(_interruption(), INTERRUPTED)
            if os.environ.get("VLA_DEBUG"):
                traceback.print_exception(error)
            _stop(*explain(error))
    raise SystemExit(0)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """A list that Ctrl-C makes non-empty; a library may turn the interrupt into another error.

    Python discards an exception in a destructor or in a callback from C. An interrupt that ends
    there is sent again.
    """
    seen: list[int] = []

    def interrupt(number: int, frame: Any) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    def again() -> None:
        if sys.unraisablehook is discarded:  # the command still runs
            _thread.interrupt_main()

    def discarded(error: Any) -> None:
        if not issubclass(error.exc_type, KeyboardInterrupt):
            return hook(error)
        timer = threading.Timer(AGAIN, again)
        timer.daemon = True
        timer.start()

    before, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
        sys.unraisablehook = discarded
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = hook


def _interruption() -> str:
    verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    saved = verb == "eval" and any(word.startswith("--out") for word in sys.argv)
    return f"interrupted{'; the same command continues' if saved or verb in _RESUMABLE else ''}"


def _stop(message: str, code: int) -> NoReturn:
    print(" ".join(message.split()), file=sys.stderr)
    raise SystemExit(code) from None


def explain(error: BaseException) -> tuple[str, int]:
    """The line for an exception, and the exit code."""
    name, text = _original(error)
    if _is_full(error, text):
        return f"error: {_full_disk(error)}", INPUT_ERROR
    if isinstance(error, ModuleNotFoundError):
        module = (error.name or "vla").split(".")[0]
        if module != "vla":  # otherwise a defect of this package, not a missing one
            advice = install_command(module)
            return f"error: the package {module} is missing; install it: {advice}", INPUT_ERROR
    if isinstance(error, OSError) and error.errno is not None:
        return f"error: {_operating_system(error)}", INPUT_ERROR
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return (
            f"error: the memory is full ({text or name}); use a smaller train.batch_size or "
            "data.shuffle, fewer workers, or a smaller model"
        ), INPUT_ERROR
    if isinstance(error, ValueError | OSError) and not _raised_in_library(error):
        return f"error: {text or name}", INPUT_ERROR
    root = type(error).__module__.split(".")[0]
    if isinstance(error, ValueError | OSError | ImportError) or root in _INPUT_PACKAGES:
        path = _path_at_hand(error)
        place = f"{path}: " if path and str(path) not in text else ""
        return f"error: {place}{name}: {text} (details: {_log(error)})", INPUT_ERROR
    where = _place(error)
    return (
        f"error: a defect of vla, not of your input: {name}{where}: {text}; please report it with "
        f"{_log(error)}"
    ), DEFECT


def _original(error: BaseException) -> tuple[str, str]:
    """Type and message of an error, also of one that a loader process or Ray passed on."""
    cause = getattr(error, "cause", None)  # Ray's
    if isinstance(cause, BaseException):
        error = cause
    name, text = type(error).__name__, str(error).strip()
    if isinstance(error, KeyError):
        text = f"key {text}"
    if "Traceback (most recent call last):" in text:  # torch puts a worker's traceback into it
        found = re.findall(r"^([A-Za-z_][\w.]*(?:Error|Sample|Exception)): (.*)", text, re.M)
        if found:
            name, text = found[-1][0].rpartition(".")[2], found[-1][1]
    return name, text


def _operating_system(error: OSError) -> str:
    path = error.filename2 or error.filename
    advice = _OS_ADVICE.get(error.errno or 0, error.strerror or str(error))
    return f"{path}: {advice}" if path is not None else advice


def _is_full(error: BaseException, text: str) -> bool:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or (bool(_FULL.search(text)) and not isinstance(error, ValueError))


def _full_disk(error: BaseException) -> str:
    path = getattr(error, "filename", None) or _path_at_hand(error)
    named = f"the disk of {path} is full" if path else "the disk is full"
    return f"{named}; free some space, then repeat the command"


def _path_at_hand(error: BaseException) -> Path | None:
    """The path that the innermost function of this package works on, if it has one."""
    names = ("path", "file", "temporary", "out", "directory", "folder", "parts", "checkpoint")
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_code.co_filename.startswith(_PACKAGE):
            for name in names:
                if isinstance(value := frame.f_locals.get(name), Path):
                    return value
    return None


def _frames(error: BaseException) -> Iterator[traceback.FrameSummary]:
    yield from reversed(traceback.extract_tb(error.__traceback__))


def _raised_in_library(error: BaseException) -> bool:
    """True if the error was raised by an installed package other than this one."""
    last = next(_frames(error), None)
    if last is None or last.filename.startswith(_PACKAGE):
        return False
    return last.filename.startswith(("<frozen", *_LIBRARIES))


def _place(error: BaseException) -> str:
    """The innermost line of this package in the traceback."""
    for frame in _frames(error):
        if frame.filename.startswith(_PACKAGE):
            return f" in vla{frame.filename.removeprefix(_PACKAGE)}:{frame.lineno}"
    return ""


def _log(error: BaseException) -> str:
    """Write the traceback to a file in the temporary folder; returns its path."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix=f"vla-error-{stamp}-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            print("command:", *sys.argv, file=file)
            traceback.print_exception(error, file=file)
    except OSError:
        return "the traceback that VLA_DEBUG=1 prints"
    return file.name


def install_command(module: str) -> str:
    """``pip install 'vla[serve]'`` if an extra has the package, else its own name."""
    try:
        requirements = requires("vla") or []
    except PackageNotFoundError:  # a checkout that is not installed
        requirements = []
    pattern = re.compile(rf"{re.escape(module).replace('_', '[-_]')}\b.*extra == ['\"](\w+)['\"]")
    extras = [found[1] for r in requirements if (found := pattern.match(r))]
    extras = [extra for extra in extras if extra != "dev"]
    return f"pip install 'vla[{extras[0]}]'" if extras else f"pip install {module}"
