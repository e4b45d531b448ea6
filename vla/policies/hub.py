"""Policies on the Hugging Face hub: ``hf://owner/name``, or ``hf://owner/name@revision``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vla.errors import DataError

_ADDRESS = re.compile(r"hf:/{1,2}([\w.-]+/[\w.-]+)(?:@([\w./-]+))?/?")  # Path merges slashes
_NAME = re.compile(r"[\w.-]+/[\w.-]+")
CARD = "README.md"


def is_address(path: str | Path) -> bool:
    """True if the path stands for a policy on the hub."""
    return str(path).startswith("hf:/")


def downloaded(path: str | Path, files: tuple[str, ...]) -> Path:
    """The folder of a policy on the hub in Hugging Face's cache.

    Args:
        path: the address.
        files: of a policy; other files are not downloaded.

    Raises:
        DataError: not an address of a policy, or the hub cannot be read.
    """
    from huggingface_hub import snapshot_download

    found = _ADDRESS.fullmatch(str(path))
    if found is None:
        raise DataError(f"{path}: expected hf://owner/name, or hf://owner/name@revision")
    check_name(found[1])
    patterns = [pattern for name in files for pattern in (name, f"{name}/*")]
    with _reported(f"hf://{found[1]}"):
        return Path(snapshot_download(found[1], revision=found[2], allow_patterns=patterns))


def check_name(name: str) -> None:
    """Check the name of a repository.

    Raises:
        DataError: the hub does not allow it.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise DataError(f"{name}: expected owner/name: {error}") from error
    if not _NAME.fullmatch(name):
        raise DataError(f"{name}: expected owner/name")


def push(folder: Path, files: tuple[str, ...], name: str, card: str, private: bool) -> str:
    """Upload a saved policy as one commit; returns the address of the page.

    Args:
        folder: of the policy.
        files: files and folders of a policy.
        name: ``owner/name``; created if there is none.
        card: text of the model card.
        private: of a new repository.

    Raises:
        DataError: not such a name, no access, or the hub cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    check_name(name)
    paths = [path for part in files for path in _files(folder / part)]
    operations = [CommitOperationAdd(str(p.relative_to(folder).as_posix()), str(p)) for p in paths]
    operations.append(CommitOperationAdd(CARD, card.encode()))
    api = HfApi()
    with _reported(f"hf://{name}"):
        page = api.create_repo(name, private=private, exist_ok=True)
        api.create_commit(name, operations, commit_message="Policy of vla")
    return str(page)


def _files(path: Path) -> list[Path]:
    """The file itself, or all files in a folder."""
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


@contextmanager
def _reported(address: str) -> Iterator[None]:
    """Errors of the hub as one message."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        yield
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{address}: {reason}; check the name and the network, and log in with "
            "`hf auth login` if it is private"
        ) from error
