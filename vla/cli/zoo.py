"""The verb that lists components, presets and tasks, or measures policies."""

from __future__ import annotations

import inspect
import json
from typing import Annotated, Optional

import typer

from vla.cli.options import Device, Json
from vla.errors import ConfigError


def zoo(
    configs: Annotated[
        Optional[list[str]],
        typer.Argument(
            help="with --measure: YAMLs of runs, and key=value changes for all of them; "
            "with --prove: families (gpt2, timm:resnet) or kinds (causal, seq2seq, vlm, timm)"
        ),
    ] = None,
    tasks: Annotated[
        Optional[str], typer.Option(help="list the tasks of this benchmark instead")
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="measure the policies of CONFIGS instead of listing"),
    ] = False,
    proof: Annotated[
        bool,
        typer.Option(
            "--prove",
            help="check that small models of these families are right, see configs/README.md",
        ),
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="with --prove: every family, and update the table")
    ] = False,
    as_json: Json = False,
    steps: Annotated[int, typer.Option(min=1, help="with --measure: timed repetitions")] = 10,
    device: Device = "auto",
) -> None:
    """List all components and presets, measure policies, or prove model families.

    Examples: vla zoo --measure configs/demo_token.yaml policy.head=regression;
    vla zoo --prove gpt2 timm:resnet
    """
    if proof:
        if measure or tasks is not None:
            raise ConfigError("zoo: give one of --prove, --measure and --tasks")
        from vla.cli.prove import prove

        return prove(configs or [], everything, as_json)
    if everything:
        raise ConfigError("zoo: --all belongs to --prove: vla zoo --prove --all")
    if measure != bool(configs):
        raise ConfigError(
            "zoo: --measure and configurations belong together (families need --prove), "
            "for example: vla zoo --measure configs/demo_token.yaml"
        )
    if configs:
        from vla.training.measure import run_measurements

        run_measurements(configs, as_json, steps, device)
    elif tasks is not None:
        show_tasks(tasks, as_json)
    elif as_json:
        print(json.dumps(listing(), indent=1))
    else:
        show_listing()


def listing() -> dict[str, dict[str, dict[str, str]]]:
    """Slot -> "components" and "presets" -> name -> one line of description.

    The slot "unavailable" has modules whose optional dependency is missing, with the reason.
    """
    from vla.config import presets, registered
    from vla.config.registry import slots, unavailable

    slots_found = {}
    for slot in slots():
        lines = {n: (inspect.getdoc(c) or "").split("\n")[0] for n, c in registered(slot).items()}
        files = {n: p.read_text(encoding="utf-8").split("\n")[0] for n, p in presets(slot).items()}
        described = {name: line.removeprefix("# ") for name, line in files.items()}
        slots_found[slot] = {"components": lines, "presets": described}
    return slots_found | {"unavailable": {"modules": unavailable()}}


def show_listing() -> None:
    """The listing on the terminal."""
    for slot, kinds in listing().items():
        for kind, rows in kinds.items():
            if rows:
                _print_rows(f"{slot}: {kind}", rows)


def show_tasks(benchmark: str, as_json: bool) -> None:
    """The tasks of a benchmark: id, group and instruction."""
    from vla.evaluation.rollout import open_benchmark

    found = open_benchmark({"name": benchmark}).tasks()
    if as_json:
        rows = [{"id": t.id, "group": t.group, "instruction": t.instruction} for t in found]
        return print(json.dumps(rows, indent=1))
    for group in dict.fromkeys(task.group for task in found):
        lines = {t.id: t.instruction for t in found if t.group == group}
        _print_rows(f"{benchmark}, group {group}" if group else benchmark, lines)


def _print_rows(title: str, rows: dict[str, str]) -> None:
    from vla.utils.tables import print_table

    print_table([{"name": n, "text": text} for n, text in rows.items()], title, header=False)
    print()
