"""Results of the start-up proof: checks of a model family at a tiny size, and their cache."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import _disable_current_modes

from vla.errors import ConfigError
from vla.utils.io import write_json

Execution = Literal["packed", "separate"]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Check:
    """One check of a model.

    name: what is compared, for example ``cached equals uncached``.
    passed: the result.
    detail: the largest difference, or the error; one line.
    """

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Verdict:
    """Result of the proof of one family.

    kind: causal, seq2seq, vlm or timm.
    family: model type of the configuration, or the name of the timm family.
    checks: the checks of the chosen execution, in order.
    execution: ``packed`` puts several texts into one sequence; ``separate`` gives each its own.
    drafts: False if tokens cannot be dropped from the cache; then there is no speculative decoding.
    """

    kind: str
    family: str
    checks: tuple[Check, ...]
    execution: Execution = "packed"
    drafts: bool = True

    @property
    def right(self) -> bool:
        """True if every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def verdict(self) -> str:
        """``right``, ``right, separate sequences`` or ``refused``."""
        if not self.right:
            return "refused"
        return "right" if self.execution == "packed" else "right, separate sequences"

    @property
    def reason(self) -> str:
        """The first failed check in one line; empty if all passed."""
        failed = next((c for c in self.checks if not c.passed), None)
        return "" if failed is None else f"{failed.name}: {failed.detail}"


def require(verdict: Verdict) -> Verdict:
    """The same verdict.

    Raises:
        ConfigError: the family is refused; the message names the check.
    """
    if not verdict.right:
        raise ConfigError(
            f"{verdict.kind} {verdict.family!r} is refused by the start-up proof, failed check: "
            f"{verdict.reason}; configs/README.md lists the families that pass"
        )
    return verdict


def one_line(error: BaseException) -> str:
    """Class and first line of an error's message, at most 160 characters."""
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}"[:160]


def cache_folder() -> Path:
    """The folder of cached verdicts, ``~/.cache/vla/proof`` (or below ``XDG_CACHE_HOME``)."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "vla" / "proof"


def cached(kind: str, family: str, about: dict[str, Any], prove: Callable[[], Verdict]) -> Verdict:
    """The verdict in the cache, or that of ``prove``, which is then cached.

    A new version of vla, of transformers, timm or torch makes a new entry; so does a change of
    the modules in ``models/vision`` (timm) or ``models/decoders`` (all others). A folder that
    cannot be written disables the cache.

    Args:
        kind: see ``Verdict``.
        family: see ``Verdict``.
        about: configuration class and field values that the proof depends on, as plain data.
        prove: runs the checks.
    """
    text = json.dumps(
        [_versions("vision" if kind == "timm" else "decoders"), kind, family, about],
        sort_keys=True,
        default=str,
    )
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = (
        cache_folder()
        / f"{kind}-{''.join(c if c.isalnum() else '_' for c in family)}-{digest}.json"
    )
    found = _read(path)
    if found is not None:
        return found
    # The caller may build a policy without gradients, under another default device, or from shapes.
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.device("cpu"),
        _disable_current_modes(),
    ):
        verdict = prove()
    try:
        write_json(path, asdict(verdict))
    except OSError as error:
        log.debug("%s: the verdict is not cached (%s)", path, error)
    return verdict


def _read(path: Path) -> Verdict | None:
    """The verdict in a file; None if it is missing or damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        checks = tuple(Check(**check) for check in data["checks"])
        return Verdict(data["kind"], data["family"], checks, data["execution"], data["drafts"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@functools.cache
def _versions(folder: str) -> list[str]:
    """Versions of the libraries, and a digest of the modules in a folder of ``models``."""
    versions = []
    for name in ("vla", "transformers", "timm", "torch"):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(name)
    source = hashlib.sha256()
    for path in sorted((Path(__file__).parent.parent / folder).glob("*.py")):
        source.update(path.read_bytes())
    return [*versions, source.hexdigest()]
