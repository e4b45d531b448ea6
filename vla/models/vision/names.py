"""Names of timm models, found in timm's files: importing timm would import torch first."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import re
from collections.abc import Collection
from pathlib import Path

from vla.errors import ConfigError

_DEFINED = re.compile(r"^@register_model\ndef (\w+)\(", re.M)
_RENAMED = re.compile(r"register_model_deprecations\(__name__, \{(.*?)\}\)", re.S)


@functools.cache
def names_in_files() -> frozenset[str]:
    """Names of timm's models, also the old ones; empty if timm is not installed."""
    spec = importlib.util.find_spec("timm")
    folders = spec.submodule_search_locations if spec else None
    found: set[str] = set()
    for path in sorted(Path(next(iter(folders or ["."])), "models").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        found.update(_DEFINED.findall(text))
        found.update(n for block in _RENAMED.findall(text) for n in re.findall(r"'(\w+)':", block))
    return frozenset(found)


def check_base_name(model: str, path: str) -> None:
    """Refuse a model that timm does not have, without importing timm.

    Raises:
        ConfigError: the message begins with ``path`` and has the nearest names.
    """
    known = names_in_files()
    if known and model.partition(".")[0].removeprefix("timm/") not in known:
        raise ConfigError(f"{path}={model!r}: {no_such_model(model, known)}")


def no_such_model(model: str, names: Collection[str]) -> str:
    """Message about an unknown model, with the nearest of ``names``."""
    word = model.lower().replace("-", "_").removeprefix("timm/")
    close = [n for n in (word,) if n in names] or difflib.get_close_matches(word, names, 3, 0.7)
    close = close or [n for n in sorted(names) if word.split("_")[0] in n][:3]
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "no name is similar."
    return (
        f"timm has no such model; {hint} "
        'All names: python -c "import timm; print(timm.list_models())"'
    )
