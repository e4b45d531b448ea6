"""Modules to ONNX files that share one file of weights."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vla.errors import ConfigError

WEIGHTS = "weights.bin"
OPSET = 18
_INSIDE = 256  # bytes; smaller tensors stay in the graph's own file
_ALIGNMENT = 4096  # of the tensors in the file of weights, so that they can be mapped to memory


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of the exporter, which reports shapes and versions of its own."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _median(values: torch.Tensor, dim: int, keepdim: bool = False) -> tuple[torch.Tensor, ...]:
    """The median by sorting: ONNX has no median."""
    ordered, index = values.sort(dim)
    middle = (values.shape[dim] - 1) // 2
    found = [t.select(dim, middle) for t in (ordered, index)]
    return tuple(t.unsqueeze(dim) for t in found) if keepdim else tuple(found)


def trace(
    module: nn.Module,
    arguments: Mapping[str, Any],
    dynamic: Mapping[str, Any],
    inputs: list[str],
    outputs: list[str],
    what: str,
) -> Any:
    """The ONNX model of a module.

    Args:
        arguments: example inputs by the name of the argument; lists of tensors are allowed.
        dynamic: argument -> numbers of its dimensions that may change.
        inputs, outputs: names of all tensors in order.
        what: name of the part in the error message.

    Raises:
        ConfigError: the exporter of PyTorch cannot translate an operation.
    """
    free = torch.export.Dim.DYNAMIC

    def shapes(name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [dict.fromkeys(dynamic[name], free) for _ in value]
        return dict.fromkeys(dynamic[name], free)

    try:
        with _quiet(), torch.no_grad():
            exported = torch.export.export(
                module.eval(),
                (),
                dict(arguments),
                dynamic_shapes={n: shapes(n, v) for n, v in arguments.items()},
                strict=False,
            )
            exported = exported.run_decompositions({torch.ops.aten.median.dim: _median})
            program = torch.onnx.export(
                exported,
                dynamo=True,
                opset_version=OPSET,
                input_names=inputs,
                output_names=outputs,
                verbose=False,
            )
    except Exception as error:  # the exporter has many kinds of errors
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        causes = [line for line in lines if "No ONNX function" in line or "Error" in line[:60]]
        reason = (causes or lines or [type(error).__name__])[0]
        raise ConfigError(
            f"export: torch.onnx cannot translate the {what} of this policy ({reason[:300]}); "
            "keep the saved policy for it, or choose another component"
        ) from error
    assert program is not None
    return program.model


def write_graphs(models: Mapping[str, Any], folder: Path) -> None:
    """Write ``NAME.onnx`` for every model, and one file with their weights.

    Equal tensors of several graphs are written once.
    """
    import onnx_ir

    places: dict[bytes, tuple[int, int]] = {}
    with (folder / WEIGHTS).open("wb") as file:
        for model in models.values():
            for value in model.graph.initializers.values():
                tensor = value.const_value
                if tensor is None or tensor.nbytes < _INSIDE:
                    continue
                data = tensor.tobytes()
                key = hashlib.sha256(data).digest()
                if key not in places:
                    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
                    places[key] = (file.tell(), len(data))
                    file.write(data)
                offset, length = places[key]
                value.const_value = onnx_ir.ExternalTensor(
                    WEIGHTS,
                    offset,
                    length,
                    tensor.dtype,
                    shape=tensor.shape,
                    name=value.name or "",
                    base_dir=folder,
                )
    for name, model in models.items():
        model.metadata_props.clear()
        for node in model.graph.all_nodes():  # paths of source files
            node.metadata_props.clear()
        onnx_ir.save(model, folder / f"{name}.onnx")
