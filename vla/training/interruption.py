"""Ctrl-C and SIGTERM at every stage of a training run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from vla.errors import ConfigError, TrainingInterrupted


@contextmanager
def stoppable(message: str) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into TrainingInterrupted; only the main thread handles signals.

    Args:
        message: what was interrupted and how to continue.
    """
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if main else None
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise TrainingInterrupted(message) from None
    finally:
        if before is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


@contextmanager
def report_interruption(trainer: lightning.Trainer, saved: Any) -> Iterator[None]:
    """Turn the exit after Ctrl-C and SIGTERM into TrainingInterrupted; stop loader processes.

    Lightning ignores Ctrl-C from then on; the handler from before is restored.

    Args:
        saved: the callback whose ``saved`` is the step of the last checkpoint.

    Raises:
        ConfigError: a callback, logger or strategy refuses this run.
    """
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit:  # Lightning raises it after Ctrl-C and SIGTERM
        step = trainer.global_step
        where = "" if step == saved.saved else f" from step {saved.saved}"
        raise TrainingInterrupted(
            f"stopped at step {step} of {trainer.max_steps}; the same command continues{where}"
        ) from None
    except MisconfigurationException as error:
        raise ConfigError(f"trainer, loggers or callbacks: {error}") from error
    finally:
        # Lightning skips this if the run ends in a validation; the loader processes would stay.
        trainer.fit_loop.teardown()
        if before is not None:
            signal.signal(signal.SIGINT, before)
