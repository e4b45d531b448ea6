"""The committed table of model families: complete, and equal to fresh proofs."""

from __future__ import annotations

from pathlib import Path

import pytest

from vla.cli import prove as command
from vla.config.zoo_table import VERDICTS, read_verdicts, table_file
from vla.errors import ConfigError
from vla.models.decoders.proof import require

pytestmark = pytest.mark.skipif(
    not table_file().is_file(), reason="no configs/zoo.csv: run vla zoo --prove --all"
)
# Families with each verdict that their kind has, and quick proofs.
SOME = [
    ("causal", "gpt2"),
    ("causal", "lfm2"),
    ("causal", "bert"),
    ("seq2seq", "t5"),
    ("seq2seq", "fsmt"),
    ("vlm", "paligemma"),
    ("vlm", "blip"),
    ("timm", "starnet"),
]
TABLE = {(r["kind"], r["family"]): r for r in read_verdicts()}


def test_every_family_has_one_row_and_every_refusal_has_a_reason() -> None:
    assert len(read_verdicts()) == len(TABLE)
    assert {(kind, family) for kind in command.PROVERS for family in command.families(kind)} == {
        *TABLE
    }
    for row in TABLE.values():
        assert row["verdict"] in VERDICTS
        assert bool(row["reason"]) == (row["verdict"] == "refused"), row


def test_enough_families_are_right() -> None:
    right = [kind for (kind, _), row in TABLE.items() if row["verdict"] != "refused"]
    assert right.count("causal") >= 40 and right.count("vlm") >= 12 and right.count("timm") >= 60


@pytest.mark.parametrize(("kind", "family"), SOME)
def test_fresh_proofs_agree_with_the_table(
    kind: str, family: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    row = command.row(kind, family)
    assert row["verdict"] == TABLE[kind, family]["verdict"], row
    # Numbers in a reason depend on the processor.
    assert row["reason"].split(":")[0] == TABLE[kind, family]["reason"].split(":")[0]


ROWS = [
    pytest.param(kind, family, marks=[pytest.mark.table] if kind == "vlm" else [])
    for kind, family in sorted(TABLE)
    if kind != "timm"  # test_timm_networks
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "family"), ROWS)
def test_every_family_has_the_verdict_of_the_table(kind: str, family: str) -> None:
    row = command.row(kind, family)
    assert row["verdict"] == TABLE[kind, family]["verdict"], row
    if row["verdict"] == "refused" and not row["reason"].startswith("no result"):
        verdict = command.prover(kind)(family)  # from the cache
        with pytest.raises(
            ConfigError, match=f"{kind} '{family}' is refused by the start-up proof"
        ):
            require(verdict)
