"""Errors that the command line reports in one line, without a traceback."""

from __future__ import annotations


class ConfigError(ValueError):
    """An invalid configuration.

    The message has the path of the key, what is wrong, the nearest valid name and the choices.
    """


class InvalidValue(ConfigError):
    """A problem at a path, which is relative to the value that the raising function checks."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path or 'top level'}: {problem}")
        self.path, self.problem = path, problem


class DataError(ValueError):
    """Invalid data on disk. The message has the path, what was expected and the fix."""


class BadSample(DataError):
    """A sample that must not be packed or trained on.

    The message names the sample, what was expected and the fix.
    """

    file: str = ""  # the damaged file, for ``quarantine.json``; empty: unknown


class ActionError(ValueError):
    """A policy's actions are not finite, or outside the robot's bounds; they are not executed."""


class EnvironmentFailed(ValueError):
    """An environment raised an exception. The message has the task, seed, step and reason."""


class ExportMismatch(ValueError):
    """An exported policy acts differently from the saved one. The message has both."""


class FolderLocked(ValueError):
    """Another process writes into this folder. The message names the folder and the fix."""


class ReproductionMismatch(ValueError):
    """A re-run gave other results than the committed ones. The message names both."""


class TrainingDiverged(ValueError):
    """A loss or gradient is not finite. The message names step, batch, data sets and the fix."""


class TrainingInterrupted(BaseException):
    """Training was stopped by Ctrl-C or SIGTERM after a checkpoint was written.

    It is not a ``KeyboardInterrupt`` because typer discards that exception's message.
    """
