"""The policy in use: preprocessing, server, and merged adapters."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vla.data.images import decode_image, encode_image
from vla.data.robot import RobotSource
from vla.diagnose.lines import Line, not_judged
from vla.diagnose.source import pairs
from vla.diagnose.subject import Subject
from vla.diagnose.windows import Windows, instruction_at
from vla.doctor.views import EpisodeView
from vla.policies.observations import camera_image

_COMPARED = 4  # observations
_TOLERANCE = 1e-4  # of an action, in standard deviations of the data
_GREY = 4.0  # mean difference of grey levels that compression and rounding explain


def preprocessing(
    subject: Subject, source: RobotSource | str, episodes: Sequence[EpisodeView]
) -> list[Line]:
    """Raw frames through the policy's preprocessing, against the packed frames."""
    spec, manifest = subject.policy.spec, subject.manifest
    ours = (tuple(spec.image_size), spec.image_fit)
    theirs = (tuple(manifest.image_size), manifest.image_fit)
    fix = "train on data that is packed with this size and fit, or pack it again"
    if spec.cameras and min(theirs[0]) > 0 and ours != theirs:
        text = (
            f"the policy brings images to {ours[0][0]} x {ours[0][1]} px ({ours[1]}), the data "
            f"was packed to {theirs[0][0]} x {theirs[0][1]} px ({theirs[1]})"
        )
        return [Line("preprocessing", "fail", text, fix)]
    if isinstance(source, str) or not spec.cameras:
        text = f"size {ours[0][0]} x {ours[0][1]} px and fit {ours[1]} as packed; raw images "
        why = source if isinstance(source, str) else "the policy has no camera"
        return [Line("preprocessing", "ok", f"{text}not compared: {why}")]
    differences = []
    for recording, episode in pairs(source, episodes, _COMPARED):
        rows = source.mapping.rows(recording.steps)
        for camera, field in source.mapping.cameras.items():
            if camera not in spec.cameras or camera not in episode.cameras:
                continue
            raw = next(iter(recording.frames[field]([int(rows[0])])))
            used = camera_image(raw, camera, spec)
            packed = episode.images(camera, [0])[0]
            stored = decode_image(
                encode_image(used, source.mapping.mapping.image_format), camera
            ).astype(float)
            differences.append(float(np.abs(stored - packed).mean()))
    if not differences:
        return [not_judged("preprocessing", "no recording has a packed episode's key")]
    text = f"raw images as the policy gets them differ by {max(differences):.1f} grey levels"
    verdict = "ok" if max(differences) <= _GREY else "fail"
    advice = "" if verdict == "ok" else fix
    return [Line("preprocessing", verdict, text, advice)]  # type: ignore[arg-type]


def server(windows: Windows) -> list[Line]:
    """Actions over the openpi and OpenVLA formats against a direct call of the policy."""
    try:
        from vla.serve import client as wire
        from vla.serve.protocols import openpi, openvla
        from vla.serve.service import PolicyService
    except ImportError as error:
        return [not_judged("server", f"{error}; pip install 'vla[serve]'")]
    service, spec = PolicyService(windows.policy), windows.policy.spec
    rows = np.unique(np.linspace(0, len(windows.row_N) - 1, _COMPARED).round().astype(int))
    formats = {
        "openpi": lambda request: openpi.unpack(wire.pack(request)),
        "OpenVLA": lambda request: openvla.from_json(_json_numpy(request).encode())[0],
    }
    worst = {}
    for name, through in formats.items():
        if name == "OpenVLA" and spec.history > 1:
            continue  # its requests are independent
        differences = []
        for n in rows:
            client = object()
            for observation in _history(windows, int(n)):
                fields = through(observation)
                seen = service.observation(fields, fields.pop("prompt"), client)
                torch.manual_seed(0)
                chunks, _ = service.runner.predict([client], [seen])
            direct = windows.predict(rows=np.array([n]), batch=1)[0]
            apart = np.abs(chunks[0][windows.steps] - direct) / windows.scale_A
            differences.append(float(apart.max()))
            service.runner.reset(client)
        worst[name] = max(differences)
    text = ", ".join(f"{n} {v:.2g}" for n, v in worst.items())
    finding = f"largest difference from a direct call, in standard deviations: {text}"
    if max(worst.values()) <= _TOLERANCE:
        return [Line("server", "ok", finding)]
    fix = "report this as a defect of vla serve, with the policy's robot_spec.json"
    return [Line("server", "fail", finding, fix)]


def _history(windows: Windows, n: int) -> list[dict[str, Any]]:
    """The requests of a client up to window ``n``, as many as the policy has history."""
    spec, episode = windows.policy.spec, windows.episodes[windows.episode_N[n]]
    requests = []
    for k in reversed(range(spec.history)):
        t = max(0, int(windows.row_N[n]) - k)
        images = {f"observation/{c}": episode.images(c, [t])[0] for c in spec.cameras}
        request = {**images, "prompt": instruction_at(episode, int(windows.row_N[n]))}
        if spec.state_dim and episode.state is not None:
            request["state"] = episode.state[t]
        requests.append(request)
    return requests


def _json_numpy(request: dict[str, Any]) -> str:
    import base64
    import json

    def encoded(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"__numpy__": data, "dtype": value.dtype.str, "shape": value.shape}

    return json.dumps({k: encoded(v) for k, v in request.items()})


def merged_adapters(windows: Windows) -> list[Line]:
    """Predictions before and after LoRA adapters are merged into the weights."""
    policy = getattr(windows.policy, "policy", None)
    layers = [m for m in getattr(policy, "modules", list)() if _is_adapted(m)]
    if policy is None or not layers:
        return [not_judged("LoRA", "the policy has no adapters")]
    rows = np.arange(min(len(windows.row_N), 16))
    before = windows.predict(rows=rows)
    merged = copy.deepcopy(policy)
    for module in merged.modules():
        if _is_adapted(module):
            module.merge()
    bound = type(windows.policy)(merged, windows.policy.robot)
    after = Windows(**{**vars(windows), "policy": bound}).predict(rows=rows)
    change = windows.change(before, after)
    share = f"{100 * change:.2g} % of their spread"
    text = f"merging {len(layers)} adapters changes the actions by {share}"
    if change <= 0.01:
        return [Line("LoRA", "ok", text)]
    fix = "use the adapters unmerged (as vla does), or merge them in float32 without 4-bit weights"
    return [Line("LoRA", "warn" if change < 0.05 else "fail", text, fix)]


def _is_adapted(module: Any) -> bool:
    return hasattr(module, "lora_A") and hasattr(module, "merge")
