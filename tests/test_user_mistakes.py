"""A user's mistake is one line on the command line, with the thing that is wrong and the fix."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import here, line  # fixtures
from conftest import REPOSITORY

__all__ = ["here", "line"]
POLICY = REPOSITORY / "experiments" / "tabletop_seen" / "policy"
RUN = "configs/demo_token.yaml"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.steps=abc", "train.steps: expected int, got 'abc'"),
        ("train.steps=-1", "train.steps: expected at least 1, got -1"),
        ("train.steps=", "train.steps: expected int"),
        ("train.batch_size=1.5", "train.batch_size: expected int"),
        ("optim.lr=.nan", "optim.lr: expected at least 0, got nan"),
        ("data.window.horizon=0", "data.window.horizon: expected at least 1"),
        ("=", "override '=': expected key=value"),
        ("foo", "override 'foo': expected key=value"),
        ("train..steps=1", "override 'train..steps=1': expected key=value"),
        ("train.steps=[1", "override 'train.steps=[1': not a valid key or value"),
        ("output_dir=${oc.env:VLA_NO_SUCH}", f"{RUN}: output_dir: "),
        ("train=5", "train: expected a mapping, got 5"),
        ("policy.vision.model=vit_tny_patch16_224", "policy.vision.model: unknown key"),
    ],
)
def test_overrides(line: Callable[..., str], override: str, expected: str) -> None:
    assert line("train", RUN, override).startswith(f"error: {expected}")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"# only a comment\n", "empty"),
        (b"- a\n- b\n", "expected a mapping"),
        (b"a: 1\na: 2\n", "line 2, column 1: not valid YAML: found duplicate key a"),
        (b"a:\n\tb: 1\n", "line 2, column 1: not valid YAML: .*indent with spaces"),
        (b"a: caf\xe9\n", "not a text file in UTF-8"),
        (bytes(range(256)), "not a text file in UTF-8"),
        (b"a: 'open\n", "not valid YAML"),
        (b"a: \x00\n", "not valid YAML"),
        (b"a: &x [*x]\n", "not valid YAML|unknown key"),
        (b"base: 5\n", "no such configuration"),
        (b"base: .\n", "is a folder"),
    ],
)
def test_yaml_files(
    line: Callable[..., str], tmp_path: Path, content: bytes, expected: str
) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    for command in (["train", path], ["pack", path, tmp_path / "out"], ["scale", path]):
        text = line(*command)
        assert re.search(expected, text) and str(tmp_path) in text
    assert "is a folder" in line("train", tmp_path)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--task", "pik"], r"'pik'; did you mean 'pick'"),
        (["sise=64"], r"sise: unknown key; did you mean 'size'"),
        (["--env", "NoSuchEnv-v0"], r"NoSuchEnv"),
        (["--env", "CartPole-v1"], r"takes 1 action numbers .*the policy gives 8"),
        (["--env", "no_such_module:Env-v0"], r"no_such_module"),
        (["--benchmark", "tabeltop"], r"did you mean 'tabletop'"),
        (["--robot", "nobody"], r"nobody"),
        (["--compare-to", "README.md"], r"README\.md: not the results"),
        (["--compare-to", "configs"], r"configs: not the results"),
    ],
)
def test_evaluation(line: Callable[..., str], args: list[str], expected: str) -> None:
    text = line("eval", POLICY, *args, "--episodes", "1")
    assert re.search(expected, text), text


DAMAGED: dict[str, tuple[str, bytes | None]] = {
    "robot_spec.json is no JSON": ("robot_spec.json", b"{"),
    "robot_spec.json is a list": ("robot_spec.json", b"[]"),
    "robot_spec.json is empty": ("robot_spec.json", b""),
    "robot_spec.json is binary": ("robot_spec.json", bytes(range(255))),
    "robot_spec.json has no robots": ("robot_spec.json", b'{"robots": {"a": {}}}'),
    "policy.yaml is no YAML": ("policy.yaml", b"a: [\n"),
    "policy.yaml is empty": ("policy.yaml", b""),
    "policy.yaml is a list": ("policy.yaml", b"- 1\n"),
    "policy.yaml is binary": ("policy.yaml", bytes(range(255))),
    "the weights are cut off": ("model.safetensors", b"12345678"),
    "the tokenizer is a file": ("tokenizer", None),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_damaged_policies(line: Callable[..., str], tmp_path: Path, fault: str) -> None:
    name, content = DAMAGED[fault]
    policy = tmp_path / "policy"
    shutil.copytree(POLICY, policy)
    path = policy / name
    if content is None:
        shutil.rmtree(path)
    path.write_bytes(content or b"")
    text = line("eval", policy, "--episodes", "1")
    assert str(policy) in text and (name.split(".")[0] in text), text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"version": 4}', b"\xff\xfe\x00"])
def test_damaged_manifests(line: Callable[..., str], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    assert f"{tmp_path / 'manifest.json'}: " in line("data", "verify", tmp_path)


@pytest.mark.parametrize(
    "args",
    [
        ["eval", "README.md"],
        ["eval", "configs"],
        ["doctor", "no/such/data"],
        ["doctor", "README.md"],
        ["pack", "no/such/data", "{tmp}/out"],
        ["pack", "no/such.yaml", "{tmp}/out"],
        ["pack", "configs", "{tmp}/out"],
        ["replay", "no/such/data"],
        ["data", "verify", "README.md"],
        ["scale", "no/such.yaml"],
        ["study", "configs"],
        ["zoo", "--tasks", "nothing"],
        ["zoo", "--measure", "no/such.yaml"],
        ["zoo", "--measure", RUN, "--device", "cuda:9"],
        ["serve", str(POLICY), "--device", "cuda:9"],
    ],
    ids=" ".join,
)
def test_wrong_paths_and_devices(line: Callable[..., str], tmp_path: Path, args: list[str]) -> None:
    wrong = args[2] if args[1] in ("--tasks", "--measure", "verify") else args[1]
    text = line(*(a.replace("{tmp}", str(tmp_path)) for a in args))
    assert Path(wrong).name in text or "cuda:9" in text, text
