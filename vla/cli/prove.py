"""``vla zoo --prove``: the verdicts of the start-up proof, as a table or JSON."""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from collections.abc import Callable
from typing import Any

import typer

from vla.config.registry import nearest
from vla.config.zoo_table import table_file, update_table
from vla.errors import ConfigError
from vla.utils.child import ChildFailed, call_in_child

LIMIT = 120  # s of CPU time for one family; a tiny model needs about 3 s

# Kind -> the function that lists the families, and the one that proves a family.
PROVERS = {
    "causal": (
        "vla.models.decoders.proof_causal.causal_families",
        "vla.models.decoders.proof_causal.prove_causal",
    ),
    "seq2seq": (
        "vla.models.decoders.proof_seq2seq.seq2seq_families",
        "vla.models.decoders.proof_seq2seq.prove_seq2seq",
    ),
    "vlm": (
        "vla.models.decoders.tiny_vlm.vlm_families",
        "vla.models.decoders.proof_vlm.prove_vlm_family",
    ),
    "timm": ("vla.models.vision.proof.families", "vla.models.vision.proof.prove_timm"),
}


def prove(names: list[str], everything: bool, as_json: bool) -> None:
    """Prove families and show their verdicts.

    Verdicts are cached, so a repeated call continues. Each family has its own process with a limit
    of time, so a crash becomes the reason of a refusal. With ``everything``, a checkout's
    ``configs/zoo.csv`` and the table of ``configs/README.md`` get the verdicts, also those before
    an interruption.

    Args:
        names: families, also as ``kind:family``; or kinds.
        everything: every family of every kind.

    Raises:
        ConfigError: no names, or one that no kind has.
        typer.Exit: code 1 if one of the named families is refused.
    """
    from vla.utils.progress import track

    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    wanted = chosen(names, everything)
    importlib.import_module("peft")  # here, not in the process of each family
    rows: list[dict[str, str]] = []
    try:
        for kind, family in track(wanted, "prove", unit="families"):
            rows.append(row(kind, family))
    finally:
        if everything and rows and table_file().parent.joinpath("README.md").is_file():
            update_table(rows)
    show(rows, as_json)
    if not everything and any(r["verdict"] == "refused" for r in rows):
        raise typer.Exit(1)


def families(kind: str) -> list[str]:
    """The families of a kind."""
    return sorted(_function(PROVERS[kind][0])())


def prover(kind: str) -> Callable[[str], Any]:
    """The function that proves a family of a kind."""
    return _function(PROVERS[kind][1])


def _function(path: str) -> Callable[..., Any]:
    """A function by its path; transformers and timm are imported only now."""
    module, _, name = path.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def row(kind: str, family: str) -> dict[str, str]:
    """The verdict of one family as a row of the table.

    A family without a result within ``LIMIT``, or one that ends its process, is refused.
    """
    prove_one = prover(kind)  # imports here, not in each child
    try:
        verdict, reason = call_in_child(lambda: _result(prove_one, family), LIMIT)
    except ChildFailed as error:
        verdict, reason = "refused", f"no result: {error}"
    return {"kind": kind, "family": family, "verdict": verdict, "reason": " ".join(reason.split())}


def _result(prove_one: Callable[[str], Any], family: str) -> tuple[str, str]:
    verdict = prove_one(family)
    return verdict.verdict, verdict.reason


def chosen(names: list[str], everything: bool) -> list[tuple[str, str]]:
    """(kind, family) of the names, or of all.

    Raises:
        ConfigError: no names, or an unknown one.
    """
    if everything:
        return [(kind, family) for kind in PROVERS for family in families(kind)]
    if not names:
        raise ConfigError("zoo --prove: give families, for example gpt2 timm:resnet, or --all")
    found: list[tuple[str, str]] = []
    for name in names:
        kind, colon, family = name.partition(":")
        if kind in PROVERS and not colon:
            found += [(kind, f) for f in families(kind)]
            continue
        kinds = [kind] if colon and kind in PROVERS else list(PROVERS)
        own = [(k, f) for k in kinds for f in families(k) if f == (family if colon else name)]
        if not own:
            known = {f for k in kinds for f in families(k)}
            raise ConfigError(f"zoo --prove {name}: no such family{nearest(family or name, known)}")
        found += own
    return found


def show(rows: list[dict[str, str]], as_json: bool) -> None:
    """The rows on the terminal."""
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from vla.utils.tables import print_table

    right = sum(r["verdict"] != "refused" for r in rows)
    print_table(rows, f"{right} of {len(rows)} families are right")
