"""``vla zoo --prove``: the choice of families, the table, and its section of the page."""

from __future__ import annotations

import functools
import json
import os
import signal
import types
from pathlib import Path
from typing import Any

import pytest
import typer

from vla.cli import prove as command
from vla.cli.zoo import zoo
from vla.config import zoo_table
from vla.errors import ConfigError
from vla.models.decoders.proof import Check, Verdict, cache_folder, cached

VERDICTS = {
    "good": Verdict("causal", "good", (Check("logits", True, ""),)),
    "slow": Verdict("causal", "slow", (Check("logits", True, ""),), "separate"),
    "bad": Verdict("causal", "bad", (Check("logits", False, "differ | by *1*"),)),
}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Provers of three families; returns the families that were proven."""
    calls: list[str] = []

    def prover(family: str) -> Verdict:
        calls.append(family)
        if family == "stop":
            raise KeyboardInterrupt
        return VERDICTS[family]

    module = types.SimpleNamespace(list=lambda: ["bad", "good", "slow"], prove=prover)
    monkeypatch.setattr(command, "PROVERS", {"causal": ("fake.list", "fake.prove")})
    monkeypatch.setattr(command.importlib, "import_module", lambda name: module)
    monkeypatch.setattr(command, "call_in_child", lambda function, seconds: function())
    monkeypatch.setattr(zoo_table, "configs_dir", lambda: tmp_path)
    (tmp_path / "README.md").write_text("# Reference\n\ntext\n")
    return calls


def test_named_families_are_shown_and_a_refusal_is_the_exit_code(
    fake: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo(["good", "causal:slow"], proof=True, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [r["verdict"] for r in rows] == ["right", "right, separate sequences"]
    assert fake == ["good", "slow"]
    with pytest.raises(typer.Exit) as stop:
        zoo(["bad"], proof=True)
    assert stop.value.exit_code == 1
    text = capsys.readouterr().out
    assert "0 of 1 families are right" in text and "logits: differ" in text
    assert not (tmp_path / "zoo.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"proof": True}, "give families, for example gpt2 timm:resnet, or --all"),
        ({"proof": True, "configs": ["god"]}, "no such family; did you mean 'good'?"),
        ({"proof": True, "configs": ["causal:god"]}, "no such family; did you mean 'good'?"),
        ({"proof": True, "measure": True}, "give one of --prove, --measure and --tasks"),
        ({"everything": True}, "--all belongs to --prove"),
    ],
)
def test_wrong_arguments(fake: list[str], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        zoo(**arguments)


def test_all_families_are_written_to_the_table_and_the_page(
    fake: list[str], tmp_path: Path
) -> None:
    zoo(proof=True, everything=True)
    zoo(proof=True, everything=True)  # the section is replaced
    rows = zoo_table.read_verdicts()
    assert next((r["family"], r["verdict"]) for r in rows) == ("bad", "refused")
    page = (tmp_path / "README.md").read_text()
    assert page.startswith("# Reference\n\ntext\n\n## Model families\n")
    assert page.count("| Causal language models | 3 | 1 | 1 | 1 |") == 1
    assert r"| bad | refused | logits: differ \| by \*1\* |" in page
    assert page == "\n".join(["# Reference", "", "text", "", *zoo_table.table_section(rows)]) + "\n"


def test_an_interrupted_proof_keeps_its_verdicts(
    fake: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "families", lambda kind: ["good", "stop", "slow"])
    with pytest.raises(KeyboardInterrupt):
        zoo(proof=True, everything=True)
    assert [r["family"] for r in zoo_table.read_verdicts()] == ["good"]


def die(family: str) -> Verdict:
    """A prover with one failure for each family."""
    if family == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if family == "crash":
        os.kill(os.getpid(), signal.SIGABRT)
    if family == "error":
        raise OSError("no\nfile")
    while family == "slow":
        pass
    return VERDICTS["good"]


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("killed", "no result: the process was killed, probably because memory was short"),
        ("crash", "no result: the process ended with SIGABRT"),
        ("error", "no result: OSError: no file"),
        ("slow", "no result: more than 1 s of CPU time"),
        ("good", ""),
    ],
)
def test_a_family_that_ends_its_process_is_refused(
    family: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_function", lambda path: die)
    monkeypatch.setattr(command, "LIMIT", 1)
    row = command.row("causal", family)
    assert row["reason"] == reason
    assert row["verdict"] == ("refused" if reason else "right")


def test_a_verdict_depends_on_the_sources_of_its_kind_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sources = {"vision": ["1"], "decoders": ["1"]}
    monkeypatch.setattr("vla.models.decoders.proof._versions", lambda folder: sources[folder])
    proven: list[str] = []

    def prove(kind: str) -> Verdict:
        proven.append(kind)
        return VERDICTS["good"]

    def all_kinds() -> list[str]:
        proven.clear()
        for kind in command.PROVERS:
            cached(kind, "good", {}, functools.partial(prove, kind))
        return list(proven)

    assert all_kinds() == ["causal", "seq2seq", "vlm", "timm"] and all_kinds() == []
    assert len([*cache_folder().iterdir()]) == 4
    sources["vision"] = ["2"]
    assert all_kinds() == ["timm"]
    sources["decoders"] = ["2"]
    assert all_kinds() == ["causal", "seq2seq", "vlm"]
