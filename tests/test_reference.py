"""``configs/README.md`` is generated from the code, and every option has a comment."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml

from vla.config import Slot, check, configs_dir
from vla.config.comments import option_comments
from vla.config.reference import INTRODUCTION, reference, without_comment

CODE = """
from dataclasses import dataclass
from typing import Any

@dataclass(frozen=True)
class Example:
    # Above, over
    # two lines.
    above: int = 1
    beside: tuple[int, ...] = (1,)  # beside it
    none: float = 0.0
    # Above a field of several lines.
    long: dict[str, Any] | None = (
        None
    )

class Component:
    def __init__(
        self,
        width: int,  # px
        # Text with a separator.
        text: str = "a#b",
        x: int = 1, y: int = 2,  # shared by two options
        *,
        wired: int = 0,  # not an option
    ) -> None: ...

class OneLine:
    def __init__(self, width: int = 1) -> None: ...  # of the constructor
"""


def test_a_comment_is_at_the_end_of_the_line_or_directly_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "commented.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("commented")
    assert option_comments(module.Example) == {
        "above": "Above, over two lines.",
        "beside": "beside it",
        "none": "",
        "long": "Above a field of several lines.",
    }
    expected = {"width": "px", "text": "Text with a separator.", "x": "", "y": ""}
    assert option_comments(module.Component) == expected
    assert option_comments(module.OneLine) == {"width": ""}


def test_every_option_has_a_comment() -> None:
    assert without_comment() == []


def test_the_committed_reference_is_up_to_date() -> None:
    written = (configs_dir() / "README.md").read_text(encoding="utf-8")
    assert written == reference(), "run: python -m vla.config.reference"


def test_the_example_of_the_page_is_a_valid_policy() -> None:
    example = INTRODUCTION.split("```yaml\n")[1].split("```")[0]
    policy = yaml.safe_load(example)["policy"]
    checked = check(policy, Annotated[dict[str, Any], Slot("policy")], "policy")
    assert checked["decoder"]["frozen"] is True and checked["vision"]["name"] == "conv"
