"""What a policy expects and returns, and whether a client declares the same."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from vla.config.registry import nearest
from vla.errors import ConfigError
from vla.policies.execution import Execution
from vla.policies.names import find_name, match_cameras
from vla.policies.spec import RobotSpec

_GRIPPER = re.compile(r"(^|[^a-z])(gripper|grip|jaw|finger)s?([^a-z]|$)")


def interface(spec: RobotSpec, robot: str, execution: Execution | None = None) -> dict[str, Any]:
    """Inputs, outputs and conventions of a policy as plain data; None: not known.

    Args:
        spec: of the robot.
        robot: its name.
        execution: how chunks are executed; None: as saved with the policy.
    """
    space = spec.action_space
    execution = spec.execution if execution is None else execution
    size = list(spec.image_size) if min(spec.image_size) > 0 else None
    return {
        "robot": robot,
        "cameras": list(spec.cameras),
        "image_size": list(spec.image_size),
        "camera_sizes": dict.fromkeys(spec.cameras, size),
        "image_fit": spec.image_fit,
        "image_dtype": "uint8",
        "image_layout": "HWC",
        "image_colors": "RGB",
        "history": spec.history,
        "horizon": spec.horizon,
        "execution_horizon": execution.steps_per_call(spec.horizon),  # actions of a reply
        "temporal_ensemble": execution.temporal_ensemble,
        "execution_mode": execution.mode,
        # actions that a client has left when it asks, unless the request says it ("left")
        "delay_steps": execution.delay or 0,
        "conditions_on_left_actions": None,  # known to a server, which has the policy's weights
        "state_dim": spec.state_dim,
        "state_dtype": "float32",
        "action_names": list(space.names),
        "action_units": list(space.units),
        "action_low": [_number(v) for v in space.low],
        "action_high": [_number(v) for v in space.high],
        "action_dtype": "float32",
        "binary_actions": list(space.binary),
        "integer_actions": list(space.integer),
        "action_reference": _reference(spec),
        "rotation": space.rotation or None,
        "gripper": _gripper(spec),
        "rate_hz": space.rate_hz,
        "statistics_key": robot if spec.statistics else None,
    }


def _number(value: float) -> float | None:
    """The bound, or None if there is none: JSON has no infinity."""
    return value if math.isfinite(value) else None


def _reference(spec: RobotSpec) -> list[str | None]:
    """For each action dimension "absolute", "relative" or None: not stated.

    It is absolute if the policy adds the measured state to it.
    """
    space = spec.action_space
    added = {n for n, k in zip(space.names, spec.relative, strict=False) if k >= 0}
    return [
        "absolute"
        if n in {*space.absolute, *added}
        else "relative"
        if n in space.relative
        else None
        for n in space.names
    ]


def _gripper(spec: RobotSpec) -> dict[str, Any] | None:
    """Name, bounds and closing end of the only gripper dimension; None: no or several."""
    space = spec.action_space
    found = [k for k, name in enumerate(space.names) if _GRIPPER.search(name.lower())]
    if len(found) != 1:
        return None
    (k,) = found
    bounds = [_number(space.low[k]), _number(space.high[k])]
    closed = {"closed": bounds[1], "open": bounds[0]}.get(space.units[k].lower())
    return {"name": space.names[k], "low": bounds[0], "high": bounds[1], "closed": closed}


def harness_specs(about: Mapping[str, Any]) -> dict[str, Any]:
    """``action_spec`` and ``observation_spec`` of vla-eval's hello, as far as they are known.

    The harness compares them with its benchmark and warns. A binary gripper is stated if its
    closing end is known. Components with unknown conventions are left out.
    """
    seen: dict[str, Any] = {c: _component("image", 0, "rgb_hwc_uint8") for c in about["cameras"]}
    seen["language"] = _component("language", 0, "language")
    if about["state_dim"]:
        seen["state"] = _component("state", about["state_dim"], "raw")
    specs, actions = {"observation_spec": seen}, {}
    if about["rotation"] in ("euler_xyz", "axis_angle"):
        actions["rotation"] = _component("rotation", 3, about["rotation"])
    gripper = about["gripper"] or {"closed": None}
    kinds: dict[Any, str] = {
        (0.0, 1.0, 1.0): "binary_close_01",
        (-1.0, 1.0, 1.0): "binary_close_positive",
        (-1.0, 1.0, -1.0): "binary_close_negative",
    }
    kind = kinds.get((gripper.get("low"), gripper.get("high"), gripper["closed"]))
    if kind and gripper["name"] in about["binary_actions"]:
        spec = _component("gripper", 1, kind) | {"range": [gripper["low"], gripper["high"]]}
        actions["gripper"] = spec
    return specs | ({"action_spec": actions} if actions else {})


def _component(name: str, dims: int, kind: str) -> dict[str, Any]:
    return {"name": name, "dims": dims, "format": kind}


def mismatches(
    about: Mapping[str, Any], declared: Any, cameras: Mapping[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """Differences from a client's declaration, and what it declares that the policy leaves open.

    Args:
        about: from ``interface``.
        declared: keys of ``about`` with the client's values; None: not declared. Cameras may have
            other names and be more than the policy's, see ``match_cameras``.
        cameras: camera of the policy -> the client's name, where the two differ.

    Raises:
        ConfigError: not a mapping, or an unknown key.
    """
    if not isinstance(declared, Mapping):
        raise ConfigError("expected a JSON object with keys of /about, for example action_names")
    for key in declared:
        if key not in about:
            raise ConfigError(f"unknown key {key!r}{nearest(str(key), about)}")
    wrong: list[str] = []
    unknown: list[str] = []
    for key, theirs in declared.items():
        if key == "cameras":
            wrong += _camera_problems(about["cameras"], theirs, cameras or {})
        elif key == "camera_sizes" and isinstance(theirs, Mapping):
            names = {c: find_name((cameras or {}).get(c, c), theirs) for c in about["cameras"]}
            sizes = {c: theirs[name] for c, name in names.items() if name is not None}
            _compare(key, about[key], sizes, wrong, unknown)
        else:
            _compare(key, about[key], theirs, wrong, unknown)
    return wrong, unknown


def _camera_problems(ours: list[str], theirs: Any, names: Mapping[str, str]) -> list[str]:
    if not isinstance(theirs, list) or not all(isinstance(name, str) for name in theirs):
        return [f"cameras: expected a list of names, got {theirs!r}"]
    try:
        match_cameras(ours, theirs, names, "use --camera {camera}=NAME", "the client")
    except ValueError as error:
        return [f"cameras: {error}"]
    return []


def _compare(key: str, ours: Any, theirs: Any, wrong: list[str], unknown: list[str]) -> None:
    """Add the differences below ``key`` to the two lists."""
    if theirs is None:
        return
    if ours is None and key != "temporal_ensemble":  # there, None is off
        unknown.append(f"{key}: the client declares {theirs!r}; the policy does not state it")
    elif isinstance(ours, dict) and isinstance(theirs, Mapping):
        for name, value in theirs.items():
            _compare(f"{key}.{name}", ours.get(name), value, wrong, unknown)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for n, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            _compare(f"{key}[{n}]", a, b, wrong, unknown)
    elif not _same(ours, theirs):
        wrong.append(f"{key}: the policy has {ours!r}, the client declares {theirs!r}")


def _same(ours: Any, theirs: Any) -> bool:
    both = (ours, theirs)
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in both):
        return math.isclose(ours, theirs, rel_tol=1e-6, abs_tol=1e-9)
    return type(ours) is type(theirs) and ours == theirs


def text(about: Mapping[str, Any]) -> list[str]:
    """The interface as lines of text, for ``vla info``."""
    shown = dict(about) | {"temporal_ensemble": about["temporal_ensemble"] or "off"}
    lines = [f"{k:26} {_value(v)}" for k, v in shown.items() if not k.startswith("action_")]
    wide = max(map(len, [*about["action_names"], "action"]))
    lines.append(f"{'action':{wide}}  {'unit':8}  {'low':>9}  {'high':>9}  reference")
    columns = ("action_names", "action_units", "action_low", "action_high", "action_reference")
    for name, unit, low, high, reference in zip(*(about[c] for c in columns), strict=True):
        bounds = "  ".join("     none" if v is None else f"{v:>9.4g}" for v in (low, high))
        lines.append(f"{name:{wide}}  {unit or '-':8}  {bounds}  {reference or 'unknown'}")
    return [*lines, f"actions are {about['action_dtype']}; unknown: not saved with the policy"]


def _value(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, list):
        return ", ".join(map(_value, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_value(v)}" for k, v in value.items()) or "none"
    return str(value)
