"""Checks of a saved policy's configuration: it may come from anybody.

Nothing in it runs code, reads files outside the policy's folder, or uses the network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode

from vla.config import read_yaml
from vla.errors import DataError

MAX_FILE = 4 * 2**20  # bytes of policy.yaml
MAX_VALUES = 300_000  # of policy.yaml
MAX_NUMBER = 2**20  # of an option; fields of a Hugging Face configuration may be larger
MAX_TENSORS = 100_000  # that construction may create
SPARE_BYTES = 512 * 2**20  # that construction may use beside the weights
# Options by which timm, transformers or this package load weights, code or files.
_LOADING = {
    *("pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "pretrained"),
    *("pretrained_strict", "state_dict", "auto_map", "trust_remote_code", "custom_pipelines"),
    *("use_kernels", "kernel_config", "pretrained_model_name_or_path", "quantization_config"),
}
_BACKBONE = ("use_pretrained_backbone", "use_pretrained")  # true: transformers downloads weights
_ATTENTION = ("eager", "sdpa", "flex_attention", None)  # others may be code of the hub
_ATTENTION_KEYS = ("attn_implementation", "_attn_implementation", "experts_implementation")
_ADDRESS = re.compile(r"\s*([a-z][\w+.-]*://|(hf[-_]hub|local-dir):)", re.I)
_MODELS = ("decoder", "text")  # slots whose architecture would come from the hub without config


def read_saved_config(path: Path) -> dict[str, Any]:
    """The configuration in ``policy.yaml``.

    Raises:
        ConfigError: not a YAML mapping.
        DataError: too large, or it names something to load; the message has the path of the key.
    """
    if path.stat().st_size > MAX_FILE:
        raise DataError(f"{path}: larger than {MAX_FILE} bytes; save or copy the policy again")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError):
        raw = None  # ``read_yaml`` says what is wrong
    if isinstance(raw, dict):
        if "base" in raw:
            raise DataError(f"{path}: base: a saved policy has no other files; remove this key")
        for count, (name, problem) in enumerate(_values(raw)):
            if problem:
                raise DataError(f"{path}: {name}: {problem}; load policies that you trust")
            if count > MAX_VALUES:
                raise DataError(f"{path}: more than {MAX_VALUES} values; save the policy again")
    return read_yaml(path)


def _values(value: Any, name: str = "", own: bool = True) -> Iterator[tuple[str, str]]:
    """The path of every value, and what is wrong with it; empty: nothing.

    ``own``: an option of this package, not a field of a Hugging Face configuration.
    """
    key = name.rpartition(".")[2].partition("[")[0]
    yield name, _problem(key, value, own)
    if isinstance(value, dict):
        lacks = isinstance(value.get("model"), str) and not value.get("config")
        if lacks and key in _MODELS:
            yield f"{name}.model", "there is no config beside it, so it would be downloaded"
        for inner, item in value.items():
            path = f"{name}.{inner}" if name else str(inner)
            yield from _values(item, path, own and key != "config")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _values(item, f"{name}[{index}]", own)


def _problem(key: str, value: Any, own: bool) -> str:
    if key in _LOADING and value is not None:
        return "it loads weights, code or files, which a saved policy may not"
    if key in _BACKBONE and value:
        return "it downloads weights, which a saved policy may not"
    if key in _ATTENTION_KEYS and isinstance(value, str) and value not in _ATTENTION:
        return f"{value!r} may be code of a model hub; expected eager or sdpa"
    if isinstance(value, str) and _ADDRESS.match(value):
        return f"the address {value[:100]!r} is not loaded by a saved policy"
    if own and type(value) is int and abs(value) > MAX_NUMBER and key != "seed":
        return f"expected at most {MAX_NUMBER}, got {value}"
    return ""


class MemoryLimit(TorchDispatchMode):
    """Refuses tensors beyond what a policy with weights of this size needs.

    Args:
        path: file of the weights. Tensors may have four times its size, because the weights may be
            saved in 16 bits, and larger vocabularies are copied.
        base: bytes of the weights that the file leaves out; counted up to the machine's memory.

    Raises:
        MemoryError: one tensor is larger than that, the process grows by more, or there are too
            many tensors. It is no ValueError, which constructors change to other errors.
    """

    def __init__(self, path: Path, base: int = 0) -> None:
        super().__init__()
        file = 4 * path.stat().st_size + SPARE_BYTES
        self.path, self.limit = path, max(file, min(file + 4 * base, _machine_bytes()))
        self.before, self.created = _resident_bytes(), 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if device is None or torch.device(device).type != "meta":
            count = _new_items(func, args, kwargs)
            size = count * (kwargs.get("dtype") or torch.get_default_dtype()).itemsize
            grown = _resident_bytes() - self.before if count else 0
            if size > self.limit or grown + size > self.limit:
                size_text = f"more than {self.limit // 2**20} MiB of memory"
                raise MemoryError(f"a model of this size needs {size_text}, unlike the weights")
            self.created += count > 0
            if self.created > MAX_TENSORS:
                raise MemoryError(f"a model of this size has more than {MAX_TENSORS} tensors")
        return func(*args, **kwargs)


def _new_items(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Items of the tensor that a factory function creates; 0 for other functions."""
    name = func._schema.name.removeprefix("aten::")
    named = zip(func._schema.arguments, args, strict=False)
    given: dict[str, Any] = {argument.name: value for argument, value in named} | kwargs
    if name == "arange":
        span = given.get("end", 0) - given.get("start", 0)
        return max(0, int(span / (given.get("step") or 1)))
    if name in ("linspace", "logspace"):
        return int(given.get("steps", 0))
    if name == "eye":
        return int(given["n"]) * int(given.get("m", given["n"]))
    if name == "repeat":
        return int(given["self"].numel()) * _product(given["repeats"])
    size = given.get("size")
    created = name.startswith(("empty", "zeros", "ones", "full", "rand", "new_"))
    return _product(size) if created and isinstance(size, list | tuple) else 0


def _product(sizes: Any) -> int:
    product = 1
    for size in sizes:
        product *= int(size)
    return product


def _machine_bytes() -> int:
    """Memory of this machine; 0 where the system does not tell it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


def _resident_bytes() -> int:
    """Memory of this process; 0 where the system does not tell it."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * 4096
