"""``vla export``: a saved policy as ONNX graphs and JSON tables in one folder."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from vla.errors import DataError
from vla.inference.export_graphs import (
    ActionGraph,
    LogitsGraph,
    PolicyGraph,
    PrefixGraph,
    TextGraph,
    example_cache,
)
from vla.inference.export_onnx import OPSET, trace, write_graphs
from vla.inference.export_tables import decoding_table, units_table
from vla.inference.exportable import check_exportable
from vla.inference.exported import FORMAT
from vla.inference.merge import fold_embeddings
from vla.models.heads.chain_of_thought import ChainOfThoughtHead
from vla.models.heads.flow import FlowHead
from vla.models.heads.token import TokenHead
from vla.models.lora import merge_adapters
from vla.policies.bound import BoundPolicy
from vla.policies.spec import library_versions
from vla.utils.io import sync_tree, write_json

_PACKAGES = ("onnx", "onnxruntime", "onnxscript", "numpy")


def write_folder(out: Path, write: Callable[[Path], None], marker: str) -> Path:
    """Fill a temporary folder and rename it to ``out``; an old one with ``marker`` is replaced.

    Raises:
        DataError: ``out`` exists and has no file ``marker``.
    """
    if out.exists() and not (out / marker).is_file():
        raise DataError(f"{out}: exists and has no {marker}; give another folder, or delete it")
    temporary, old = (out.with_name(out.name + end) for end in (".tmp", ".old"))
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        write(temporary)
        sync_tree(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
        out.replace(old)
    temporary.replace(out)
    shutil.rmtree(old, ignore_errors=True)
    return out


def export_onnx(
    bound: BoundPolicy,
    out: Path,
    quantize: str | None = None,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Write the policy of one robot to ``out`` and return the folder; it runs without torch.

    Adapters and separate embeddings of action tokens become part of the weights of ``bound``.

    Args:
        bound: on the CPU, in evaluation mode, with the plan mode and sampling to be exported.
        quantize: int8: weights of matrix products in 8 bits.
        check: called with the written folder before it gets its name.

    Raises:
        ConfigError: a part of the policy cannot be exported; the message names it.
        DataError: ``out`` exists and is no exported policy.
    """
    check_exportable(bound)
    for name in _PACKAGES:  # a missing one is reported with the extra that has it
        importlib.import_module(name)
    merge_adapters(bound.policy)
    fold_embeddings(bound.policy.decoder)
    with torch.no_grad():
        models, decoding = _traced(bound)
    about = {
        "format": FORMAT,
        "robot": bound.robot,
        "graphs": list(models),
        "opset": OPSET,
        "quantize": quantize,
        "versions": library_versions() | {name: version(name) for name in _PACKAGES},
    }

    def write(folder: Path) -> None:
        chosen = models
        if quantize is not None:
            from vla.inference.export_int8 import quantized

            chosen = quantized(models, folder)
        write_graphs(chosen, folder)
        write_json(folder / "export.json", about)
        write_json(folder / "decoding.json", decoding)
        write_json(folder / "normalisation.json", units_table(bound.normaliser, bound.spec))
        write_json(folder / "robot_spec.json", {"robots": {bound.robot: bound.spec.to_dict()}})
        backend = bound.policy.decoder.tokenizer.backend_tokenizer
        text = backend.to_str()
        (folder / "tokenizer.json").write_text(text, encoding="utf-8")
        if check is not None:
            check(folder)

    return write_folder(out, write, "export.json")


def _traced(bound: BoundPolicy) -> tuple[dict[str, Any], dict[str, Any]]:
    """The graphs by name, and ``decoding.json``."""
    policy, spec = bound.policy, bound.spec
    decoder, head, rows = policy.decoder, policy.head(bound.robot), 2
    prefix_graph = PrefixGraph(policy, bound.robot)
    size = spec.image_size if spec.cameras else (0, 0)
    shape = (rows, len(spec.cameras), spec.history, 3, *size)
    inputs: dict[str, torch.Tensor] = {"images_BVTCHW": torch.zeros(shape, dtype=torch.uint8)}
    if policy.states:
        inputs["state_BTP"] = torch.zeros(rows, spec.history, spec.state_dim)
    found = prefix_graph(**inputs)
    _, positions_N = decoder._embed_prefix(
        policy.prefix(inputs["images_BVTCHW"], bound.robot, inputs.get("state_BTP"))
    )
    positions = positions_N.tolist()
    first = positions[-1] + 1 if positions else 0
    cross = dict(zip(["cross_BMD"], found[1:], strict=False))
    ids = torch.ones(rows, 4, dtype=torch.long)
    models: dict[str, Any] = {}

    def add(name: str, module: torch.nn.Module, arguments: dict[str, Any], what: str) -> None:
        dynamic = {n: _DYNAMIC[n] for n in arguments}
        if name == "action":  # the number of image tokens is a part of the graph
            dynamic["prefix_BND"] = [0]
        names = [n for argument in arguments for n in _names(argument, arguments[argument])]
        outputs = _OUTPUTS[name][: 1 + len(cross)] if name == "vision" else list(_OUTPUTS[name])
        if name == "text":
            outputs += _names("present", arguments["past"])
        models[name] = trace(module, arguments, dynamic, names, outputs, what)

    inner = head.action if isinstance(head, ChainOfThoughtHead) else head
    start = {}
    if isinstance(inner, FlowHead):
        start = {"start_BHA": torch.zeros(rows, spec.horizon, spec.action_space.dim)}
    if not isinstance(head, TokenHead | ChainOfThoughtHead):
        action = ActionGraph(decoder, head, positions, first)
        add(
            "policy",
            PolicyGraph(prefix_graph, action),
            {**inputs, "ids_BS": ids, **start},
            "policy",
        )
        return models, decoding_table(decoder, head, positions, [])
    add("vision", prefix_graph, inputs, "vision encoder or connector")
    # Sizes 0 and 1 would become parts of the graph.
    example = torch.zeros(rows, 3 + len(positions), decoder.width)
    past, hidden = example_cache(decoder, example, cross.get("cross_BMD"))
    decoding = decoding_table(decoder, head, positions, [(t.shape[1], t.shape[3]) for t in past])
    text_inputs = {
        "prefix_BND": example,
        "ids_BS": ids,
        "positions_BL": torch.zeros(rows, example.shape[1] + 4, dtype=torch.long),
        "past": past,
        **cross,
    }
    add("text", TextGraph(decoder), text_inputs, "decoder")
    if (
        any(s["kind"] != "forced" for s in decoding["segments"])
        or decoding["plan"]["switch_margin"]
    ):
        add("logits", LogitsGraph(decoder), {"hidden_MD": hidden}, "output layer")
    if decoding["legal"]:
        legal = LogitsGraph(decoder, decoding["legal"])
        add("legal", legal, {"hidden_MD": hidden}, "output layer")
    if isinstance(head, ChainOfThoughtHead):
        action = ActionGraph(decoder, head.action, positions, first)
        action_inputs = {"prefix_BND": found[0], "ids_BS": ids, **start, **cross}
        add("action", action, action_inputs, "action head")
    return models, decoding


# Argument of a graph -> dimensions whose sizes change: rows, tokens.
_DYNAMIC = {
    "images_BVTCHW": [0],
    "state_BTP": [0],
    "ids_BS": [0, 1],
    "positions_BL": [0, 1],
    "prefix_BND": [0, 1],
    "past": [0, 2],
    "cross_BMD": [0],
    "start_BHA": [0],
    "hidden_MD": [0],
}
_OUTPUTS = {
    "vision": ["prefix", "cross"],
    "text": ["hidden"],
    "logits": ["logits"],
    "legal": ["logits"],
    "action": ["actions"],
    "policy": ["actions"],
}


def _names(argument: str, value: Any) -> list[str]:
    """Names of the tensors of an argument, without the letters of their dimensions."""
    name = argument.rpartition("_")[0] or argument
    if not isinstance(value, list):
        return [name]
    return [
        f"{name}_{kind}_{n // 2}" for n, kind in enumerate(["key", "value"] * (len(value) // 2))
    ]
