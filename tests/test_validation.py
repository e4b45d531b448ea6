"""Validation of values against annotations: strict types, and messages with the key's path."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from vla.config import build, check, register, registered, registry
from vla.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float = 1.0


@dataclass(frozen=True)
class Outer:
    count: int = 1
    rate: float = 1.0
    name: str = ""
    flag: bool = False
    sizes: tuple[int, ...] = ()
    pair: tuple[str, float] = ("", 0.0)
    texts: list[str] = field(default_factory=list)
    parts: dict[str, Inner] = field(default_factory=dict)
    weights: bool | str = False
    maybe: Inner | None = None
    mode: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count: at least 0")


def test_values_are_converted_only_from_int_to_float_and_from_list_to_tuple() -> None:
    data = {
        "rate": 2,
        "sizes": [1, 2],
        "pair": ["x", 1],
        "texts": ["t"],
        "parts": {"p": {"rate": 3}},
        "weights": "file",
        "maybe": None,
    }
    found = check(data, Outer, "")
    assert found == Outer(1, 2.0, "", False, (1, 2), ("x", 1.0), ["t"], {"p": Inner(3.0)}, "file")
    assert type(found.rate) is type(found.parts["p"].rate) is type(found.pair[1]) is float
    assert check(found, Outer, "") is found


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"count": True}, "x.count: expected int, got True (bool)"),
        ({"count": 1.0}, "x.count: expected int, got 1.0 (float)"),
        ({"count": "1"}, "x.count: expected int, got '1' (str)"),
        ({"rate": "1"}, "x.rate: expected float, got '1' (str)"),
        ({"rate": True}, "x.rate: expected float, got True (bool)"),
        ({"name": 1}, "x.name: expected str, got 1 (int)"),
        ({"flag": 1}, "x.flag: expected bool, got 1 (int)"),
        ({"flag": "true"}, "x.flag: expected bool, got 'true' (str)"),
        ({"sizes": "12"}, "x.sizes: expected a list, got '12' (str)"),
        ({"sizes": [1, "2"]}, "x.sizes[1]: expected int, got '2' (str)"),
        ({"pair": ["a"]}, "x.pair: expected 2 values, got 1: ['a']"),
        ({"pair": ["a", "b"]}, "x.pair[1]: expected float, got 'b' (str)"),
        ({"texts": None}, "x.texts: expected a list, got None (NoneType)"),
        ({"parts": [1]}, "x.parts: expected a mapping, got [1] (list)"),
        ({"parts": {"p": 1}}, "x.parts.p: expected a mapping, got 1"),
        ({"parts": {"p": {"rate": "1"}}}, "x.parts.p.rate: expected float, got '1' (str)"),
        (
            {"parts": {"p": {"rte": 1}}},
            "x.parts.p.rte: unknown key; did you mean 'rate'? Choices: rate",
        ),
        ({"weights": 1}, "x.weights: expected bool, got 1 (int)"),
        ({"maybe": 1}, "x.maybe: expected a mapping, got 1"),
        ({"mode": "c"}, "x.mode: 'c' is not allowed. Choices: a, b"),
        ({"count": -1}, "x: count: at least 0"),
        ([], "x: expected a mapping, got []"),
    ],
    ids=str,
)
def test_wrong_types_are_named_with_their_path(data: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(data, Outer, "x")
    assert str(error.value) == message


@dataclass(frozen=True)
class CropConfig:
    side: int
    parts: tuple[Inner, ...] = ()

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ValueError("side: at least 1 px")


def test_the_options_of_a_component_are_the_fields_of_its_config_dataclass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(registry._REGISTRY, "vision", dict(registered("vision")))

    @register("vision", "crop")
    class Crop:
        def __init__(self, config: CropConfig, *, pretrained: bool = True) -> None:
            self.config, self.pretrained = config, pretrained

    value = {"name": "crop", "side": 3, "parts": [{"rate": 2}]}
    component = build("vision", value, pretrained=False, unused=1)
    assert component.config == CropConfig(3, (Inner(2.0),)) and component.pretrained is False
    for change, message in (
        ({"side": 0}, "vision: side: at least 1 px"),
        ({"side": "3"}, "vision.side: expected int, got '3' (str)"),
        ({"config": 1}, "vision.config: unknown key. Choices: parts, side"),
        ({"pretrained": True}, "vision.pretrained: unknown key"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            build("vision", value | change)
    with pytest.raises(ConfigError, match=r"vision\.side: required, but missing"):
        build("vision", {"name": "crop"})
