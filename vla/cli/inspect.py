"""The verb that describes a policy, a run or a data set in one screen."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from vla.cli.options import Json
from vla.utils.tables import shorten
from vla.utils.text import count, shortened, size

_ROWS = 16  # action dimensions that the text shows
_TEXTS = 6  # instructions that the text shows


def inspect(
    path: Annotated[Path, typer.Argument(help="a policy, a run, packed data, or a robot data set")],
    as_json: Json = False,
) -> None:
    """What PATH is: cameras, actions with units, instructions, splits, training, size.

    Example: vla inspect runs/finetune
    """
    from vla.cli.facts import describe

    facts = describe(path)
    if as_json:
        print(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        print("\n".join(lines(facts)))


def lines(facts: dict[str, Any]) -> list[str]:
    """The facts as text, at most 40 lines of 80 columns for usual names."""
    body = {"policy": _policy, "run": _run}.get(facts["what"], _data)(facts)
    return [f"{facts['path']}: {body[0]}", *body[1:]]


def _policy(facts: dict[str, Any], rows: int = _ROWS) -> list[str]:
    parts = ", ".join(f"{slot} {name}" for slot, name in facts["components"].items())
    found = [
        f"a saved policy ({facts['kind']})",
        _row("size", f"{facts['parameters'] / 1e6:.1f}M parameters, {size(facts['bytes'])}"),
        *([_row("base", f"without the weights of {facts['base']}")] if facts["base"] else []),
        *(_wrapped("parts", parts) if parts else []),
    ]
    for name, text in facts["text"].items():
        found += [_row("robot", name), *_first(text.splitlines(), rows + 7)]
    return found


def _run(facts: dict[str, Any]) -> list[str]:
    state = "finished" if facts["finished"] else "not finished; the same command continues"
    found = [
        f"a training run, {state}",
        _row("steps", f"{facts['steps']} of {facts['planned_steps']}"),
        *(_row("data", f"{name}: {folder}") for name, folder in facts["data"].items()),
    ]
    if facts["init_from"]:
        found.append(_row("start", f"weights of {facts['init_from']}"))
    for name, loss in facts["losses"].items():
        text = f"{loss['final']:.4g} at the end, best {loss['best']:.4g} (step {loss['best_step']})"
        found.append(_row(name, text))
    if not facts["losses"]:
        found.append(_row("losses", "none logged yet"))
    found.append(_row("disk", size(facts["bytes"])))
    if facts["finished"]:
        policy = _policy(facts["policy"], _ROWS - 6)
        found += [_row("policy", f"{policy[0]} in the folder policy"), *policy[1:]]
    return found


def _data(facts: dict[str, Any]) -> list[str]:
    packed = facts["what"] == "packed data"
    web = facts["kind"].startswith(("web samples", "images with texts"))
    noun = "sample" if web else "episode"
    sizes = [count(facts["samples"], noun)]
    if not web and (packed or facts["sampled"] == facts["samples"]):
        sizes.append(count(facts["steps"], "step"))
    if packed:
        sizes.append(count(facts["shards"], "shard"))
    found = [
        f"{facts['what']} ({facts['kind']})",
        _row("size", ", ".join([*sizes, size(facts["bytes"])])),
    ]
    if packed and web:
        found.append(_row("split", f"{facts['train']} train, {facts['val']} val"))
    if facts["cameras"]:
        text = ", ".join(
            f"{c} {h} x {w} px" if h else f"{c} (sizes differ)"
            for c, (h, w) in facts["cameras"].items()
        )
        fit = f"; images fitted by {facts['image_fit']}" if packed else ""
        found += _wrapped("cameras", text + fit)
    if facts["actions"]:
        state = f", state of {count(facts['state_dims'], 'dimension')}"
        rate = f"{facts['rate_hz']:g} Hz" if facts["rate_hz"] else "an unknown rate"
        text = f"{count(len(facts['actions']), 'dimension')} at {rate}"
        found.append(_row("actions", text + (state if facts["state_dims"] else ", no state")))
        found += _first(_ranges(facts["actions"]), _ROWS + 1)
    if not packed:
        found += _wrapped(
            "fields", ", ".join(f"{n} ({kind})" for n, kind in facts["fields"].items())
        )
    if facts["instructions"]:
        found += _instructions(facts, packed)
    if packed and facts["left_out"]:
        found.append(_row("left out", f"{count(facts['left_out'], noun)}, see quarantine.json"))
    if not packed and 0 < facts["sampled"] < facts["samples"]:
        text = f"ranges and instructions are those of the first {facts['sampled']} episodes"
        found.append(_row("note", text))
    for note in facts["notes"][:3]:
        found += _wrapped("note", note)
    return found


def _ranges(actions: list[dict[str, Any]]) -> list[str]:
    names = shorten([a["name"] for a in actions], 24)
    wide = max(map(len, [*names, "action"]))
    units = max(len(a["unit"]) for a in [*actions, {"unit": "unit"}])
    found = [f"  {'action':{wide}}  {'unit':{units}}  {'min':>9}  {'max':>9}  {'mean':>9}"]
    for name, a in zip(names, actions, strict=True):
        cells = "  ".join(f"{a[c]:>9.4g}" if c in a else " " * 9 for c in ("min", "max", "mean"))
        binary = "  binary" if a["binary"] else ""
        found.append(f"  {name:{wide}}  {a['unit']:{units}}  {cells}{binary}")
    return found


def _instructions(facts: dict[str, Any], packed: bool) -> list[str]:
    tasks = facts["tasks"]
    split = f"; {facts['train']} train, {facts['val']} val" if packed else ""
    found = [_row("tasks", count(len(tasks), "instruction") + split)]
    columns = ("train", "val") if packed else ("episodes",)
    found.append(f"  {'instruction':50}  " + "  ".join(f"{c:>8}" for c in columns))
    for task, text in zip(tasks, shorten([t["text"] or "(empty)" for t in tasks], 50), strict=True):
        if task in tasks[:_TEXTS]:
            text = shortened(text, 50)
            found.append(f"  {text:50}  " + "  ".join(f"{task[c]:>8}" for c in columns))
    more = len(tasks) - _TEXTS
    return [*found, *([f"  and {more} more"] if more > 0 else [])]


def _row(label: str, text: str) -> str:
    return f"{label:11}{text}"


def _wrapped(label: str, text: str) -> list[str]:
    found = textwrap.wrap(text, 69, max_lines=4, placeholder=" ... (all with --json)")
    first, *rest = found or ["none"]
    return [_row(label, first), *(f"{'':11}{line}" for line in rest)]


def _first(texts: list[str], most: int) -> list[str]:
    left = len(texts) - most
    return texts if left <= 0 else [*texts[:most], f"  and {left} more (all with --json)"]
