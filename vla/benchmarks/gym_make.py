"""Makes gymnasium environments by their id, with errors of one line."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from ctypes.util import find_library
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import gymnasium as gym

from vla.errors import ConfigError


def make_environment(
    id: str, options: Mapping[str, Any], wrappers: Sequence[str | dict[str, Any]] = ()
) -> gym.Env[Any, Any]:
    """The environment of a gymnasium id, inside its wrappers (the first is the innermost).

    Args:
        id: "module:id" imports the module first.
        options: further arguments of ``gymnasium.make``.
        wrappers: "module:Class", or a mapping with this as ``wrapper`` and its arguments.

    Raises:
        ConfigError: an unknown id or module, a missing package, wrong options, or an environment
            or wrapper that cannot be made.
    """
    if not os.environ.get("MUJOCO_GL") and _needs_egl():
        os.environ["MUJOCO_GL"] = "egl"  # before MuJoCo is imported
    env = _made(id, options)
    for k, entry in enumerate(wrappers):
        arguments = dict(entry) if isinstance(entry, Mapping) else {"wrapper": entry}
        where, path = f"benchmark.wrappers[{k}]", arguments.pop("wrapper", None)
        if not isinstance(path, str):
            raise ConfigError(f"{where}.wrapper: expected module:Class, got {entry!r}")
        wrapper = imported(path, where)
        try:
            env = wrapper(env, **arguments)
        except Exception as error:  # constructors of wrappers raise any exception
            raise ConfigError(f"{where}: {path} cannot be made ({_reason(error)})") from error
        if not isinstance(env, gym.Env):
            raise ConfigError(f"{where}: {path} gives {type(env).__name__}, not an environment")
    return env


@functools.cache
def _needs_egl() -> bool:
    """True on Linux without a screen, where MuJoCo's default (GLFW) cannot render."""
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.platform == "linux" and not screen and find_library("EGL") is not None


def require(module: str, extra: str) -> None:
    """Check that an optional package is installed.

    Raises:
        ConfigError: it is missing; the message has the extra that installs it.
    """
    if importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"the package {module} is missing; install it: pip install 'vla[{extra}]'"
        )


def imported(path: str, where: str) -> Any:
    """The object of an import path "module:name".

    Raises:
        ConfigError: another form, or the module or the name does not exist.
    """
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise ConfigError(f"{where}: expected module:name, got {path!r}")
    _search_here(module)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{where}: {_not_found(module, error)}") from error
    except AttributeError as error:
        raise ConfigError(f"{where}: the module {module} has no {name!r}") from error
    except (Exception, SystemExit) as error:  # a module may raise any exception
        raise ConfigError(f"{where}: cannot import {module} ({_reason(error)})") from error
    return found


def new_expert(path: str) -> Any:
    """An expert for one episode by its import path, see ``GymBenchmark``.

    Raises:
        ConfigError: the path has no expert, or it cannot be made.
    """
    where = "benchmark.expert"
    found = imported(path, where)
    if not callable(found):
        raise ConfigError(f"{where}: {path} is {type(found).__name__}, not a function or class")
    if not isinstance(found, type) and _takes(found, 2):
        return found
    try:
        act = found()
    except Exception as error:  # other people's code raises any exception
        raise ConfigError(f"{where}: {path}() failed ({_reason(error)})") from error
    if not callable(act):
        raise ConfigError(f"{where}: {path}() gives {type(act).__name__}, not an expert")
    return act


def _takes(function: Any, count: int) -> bool:
    """True if a function can be called with so many arguments, and not without any."""
    try:
        parameters = inspect.signature(function)
        parameters.bind(*range(count))
    except (TypeError, ValueError):  # ValueError: a function of C code has no signature
        return False
    try:
        parameters.bind()
    except TypeError:
        return True
    return False


def _search_here(module: str) -> None:
    """Let Python find a module of the current folder that is installed nowhere.

    ``python -m vla`` searches that folder, the command ``vla`` does not.
    """
    first, here = module.partition(".")[0], str(Path.cwd())
    if not first or first in sys.modules or importlib.util.find_spec(first) is not None:
        return
    if PathFinder.find_spec(first, [here]) is not None:
        sys.path.append(here)


def _made(id: str, options: Mapping[str, Any]) -> gym.Env[Any, Any]:
    where = f"benchmark.id={id!r}"
    module, _, name = id.rpartition(":")
    _search_here(module)
    try:
        env: Any = gym.make(id, disable_env_checker=True, **options)
    except ModuleNotFoundError as error:
        cause = error.__cause__ if isinstance(error.__cause__, ModuleNotFoundError) else error
        raise ConfigError(f"{where}: {_not_found(module or name, cause)}") from error
    except gym.error.UnregisteredEnv as error:
        raise ConfigError(f"{where}: {_unregistered(module, name)}") from error
    except gym.error.DependencyNotInstalled as error:
        raise ConfigError(f"{where}: a package is missing: {_text(error)}") from error
    except (Exception, SystemExit) as error:  # constructors of environments raise anything
        raise ConfigError(
            f"{where}: the environment cannot be made with options {dict(options)} "
            f"({_reason(error)})"
        ) from error
    if isinstance(env, gym.Env) and isinstance(getattr(env, "action_space", None), gym.Space):
        return env
    raise ConfigError(
        f"{where}: it makes {type(env).__name__}, not one environment with an action space; "
        "choose the id of a single environment"
    )


def _not_found(module: str, error: ModuleNotFoundError) -> str:
    """What to do if ``module``, or a package that it needs, is not installed."""
    missing = error.name or module  # gymnasium drops the name
    if module == missing or module.startswith(f"{missing}."):
        return (
            f"cannot import the module {module}; install its package, or run from the folder that "
            "contains it"
        )
    return f"the package {missing} is missing, which {module} needs; install it with pip"


def _unregistered(module: str, name: str) -> str:
    known = [other for other in gym.registry if "/" in other or "-v" in other]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    if module:
        place = getattr(sys.modules.get(module), "__file__", None)
        return (
            f"no such environment: the module {module} ({place}) does not register {name!r}{hint}"
        )
    advice = "An environment of another package needs its module: module:id"
    return f"no such environment{hint} {advice}"


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"
