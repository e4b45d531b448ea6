"""The ``vla`` command. Every verb is a thin call; heavy imports happen inside, so ``vla --help`` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from vla.registry import Stopped

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Vision-language-action policies, from shards to rollouts.",
)
data_app = typer.Typer(no_args_is_help=True, help="Look after data sets.")
app.add_typer(data_app, name="data")

Overrides = Annotated[
    Optional[list[str]], typer.Argument(help="key=value overrides of the configuration, for example train.steps=100")
]


@app.command()
def pack(
    source: Annotated[Path, typer.Argument(help="a robot data set (LeRobot, RLDS, HDF5, folder), or a YAML that names a source")],
    out: Path,
    overrides: Overrides = None,
    workers: Annotated[int, typer.Option(min=0, help="processes; the result does not depend on it")] = 0,
    skip_missing: Annotated[bool, typer.Option("--skip-missing", help="pack what is there of an incomplete download")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave bad episodes out and list them in quarantine.json")] = False,
    max_bad: Annotated[float, typer.Option(min=0, max=1, help="share of bad episodes above which --skip-bad fails")] = 0.1,
    ray: Annotated[Optional[str], typer.Option(help="pack on a Ray cluster: its address, or 'local' (extra [ray])")] = None,
    to: Annotated[Optional[str], typer.Option(help="'lerobot': the other way, packed shards to a LeRobot 3.0 folder")] = None,
) -> None:
    """Write shards and a manifest. Repeat an interrupted call to continue it. For a data set, overrides are its mapping: source.mapping.size=128."""
    from vla.data.pack import pack_from

    if to is not None:
        if to != "lerobot":
            raise typer.BadParameter(f"--to {to}: only 'lerobot' can be written")
        from vla.data.lerobot_out import to_lerobot

        return typer.echo(f"wrote {to_lerobot(source, out)}")
    manifest = pack_from(source, out, overrides or [], workers, skip_bad, skip_missing, max_bad, ray)
    left_out = f", {manifest['quarantined']} left out (quarantine.json)" if manifest.get("quarantined") else ""
    typer.echo(f"{out}: {manifest['samples']} samples, {manifest['steps']} steps, {len(manifest['shards'])} shards{left_out}")


@app.command()
def train(config: Path, overrides: Overrides = None) -> None:
    """Train a policy, or continue an interrupted run in the same folder."""
    from vla.train import train_from_file

    typer.echo(f"policy saved in {train_from_file(str(config), overrides or [])}")


@app.command("eval")
def evaluate(
    policy: Path,
    env: Annotated[str, typer.Option(help="any gymnasium id whose observation has images")] = "vla/Tabletop-v0",
    skill: Annotated[
        Optional[list[str]], typer.Option(help="tabletop skills; repeat the option; default: those it was trained on")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="episodes a skill")] = 250,
    seed: Annotated[int, typer.Option(help="first seed; the same seeds pair policies")] = 1_000_003,
    out: Annotated[Optional[Path], typer.Option(help="folder for results.json, sheet and animation")] = None,
    batch: Annotated[int, typer.Option(min=1, help="environments at a time")] = 50,
    offline: Annotated[
        Optional[Path], typer.Option(help="packed robot data: errors on recorded frames instead of rollouts")
    ] = None,
    split: Annotated[str, typer.Option(help="of the offline data: train or val")] = "val",
    robot: Annotated[Optional[str], typer.Option(help="which of the policy's robots, where it commands several")] = None,
    suite: Annotated[Optional[str], typer.Option(help="tabletop cells: seen, generalisation, emergent or all")] = None,
    against: Annotated[
        Optional[Path], typer.Option(help="results.json of another policy on the same episodes: McNemar's test")
    ] = None,
    vqa: Annotated[Optional[Path], typer.Option(help="packed web data: questions about pictures instead of rollouts")] = None,
    questions: Annotated[int, typer.Option(min=1, help="how many of them")] = 2000,
    overrides: Overrides = None,
) -> None:
    """Success in closed loop with 95 % intervals, or errors on recorded data. Overrides change the environment, for example scene.concepts=20."""
    if offline is not None:
        from vla.offline import run_offline

        return run_offline(policy, offline, split, None, out, robot)
    if vqa is not None:
        from vla.vqa import run_vqa

        return run_vqa(policy, vqa, out, questions)
    from vla.report import evaluate_and_show
    from vla.sim.suites import SUITES

    if suite is not None and (skill or suite not in SUITES):
        raise typer.BadParameter(f"--suite {suite}: choose {', '.join(SUITES)}, and give no --skill beside it")
    skills = SUITES[suite] if suite else skill or []
    evaluate_and_show(policy, env, skills, episodes, seed, out, batch, overrides or [], robot, against)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder of everything the demo makes")] = Path("runs/demo"),
    short: Annotated[bool, typer.Option(help="a few minutes: the same steps on less, for tests")] = False,
) -> None:
    """From nothing to a robot that obeys: pack, train, evaluate, report. Interrupt and repeat: it continues."""
    from vla.demo import run_demo

    typer.echo(f"report: {run_demo(out, short)}")


@app.command()
def replay(
    data: Annotated[Path, typer.Argument(help="packed robot data")],
    env: Annotated[str, typer.Option(help="any gymnasium id")] = "vla/Tabletop-v0",
    episodes: Annotated[int, typer.Option(min=1)] = 20,
    out: Annotated[Optional[Path], typer.Option(help="folder for results.json, sheet and animation")] = None,
    overrides: Overrides = None,
) -> None:
    """Play recorded actions in an environment: do units, signs and order of the action dims agree with it?"""
    from vla.replay import run_replay

    run_replay(data, env, episodes, out, overrides or [])


@app.command()
def doctor(
    data: Annotated[Path, typer.Argument(help="packed shards, or a robot data set as recorded")],
    overrides: Annotated[
        Optional[list[str]], typer.Argument(help="mapping of a recorded set, for example source.mapping.fps=5")
    ] = None,
    policy: Annotated[Optional[Path], typer.Option(help="a saved policy whose statistics are compared")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text")] = False,
    html: Annotated[Optional[Path], typer.Option(help="write a page with plots and a contact sheet")] = None,
) -> None:
    """Look for what spoils robot data. Exit code 0: nothing but notes, 1: warnings, 2: errors."""
    from vla.doctor.page import run_doctor

    raise typer.Exit(run_doctor(data, overrides or [], policy, as_json, html))


@app.command()
def zoo(
    configs: Annotated[Optional[list[str]], typer.Argument(help="runs to measure, and key=value overrides for all of them")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="time the policies of CONFIGS instead of listing what there is")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables")] = False,
    steps: Annotated[int, typer.Option(min=1, help="timed repetitions; medians are shown")] = 10,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
) -> None:
    """List every component and preset, or measure parameters, FLOPs, tokens, time and memory of whole policies."""
    from vla.zoo import run_zoo

    run_zoo(configs or [], measure, as_json, steps, device)


@app.command()
def scale(
    config: Annotated[Path, typer.Argument(help="a ladder: sizes, amounts of data, seeds")],
    overrides: Overrides = None,
    on: Annotated[str, typer.Option(help="where the runs go: local, slurm (extra [cluster]) or ray (extra [ray])")] = "local",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan with FLOPs and predicted hours")] = False,
    fit_only: Annotated[bool, typer.Option("--fit-only", help="fit and draw results.csv again, train nothing")] = False,
    again: Annotated[bool, typer.Option("--again", help="make its runs once more and compare every row")] = False,
) -> None:
    """A scaling ladder: train and measure every size, append to results.csv, fit the laws, draw the curves. Repeat to continue."""
    from vla.scaling.run import run_ladder

    run_ladder(str(config), overrides or [], on, dry_run, fit_only, again)


@app.command()
def study(
    config: Annotated[Path, typer.Argument(help="a study: recipes, cells, pairs")],
    overrides: Overrides = None,
    only: Annotated[Optional[list[str]], typer.Option(help="this recipe; repeat the option")] = None,
    report_only: Annotated[bool, typer.Option("--report-only", help="tables and figures from the CSV files again")] = False,
    again: Annotated[bool, typer.Option("--again", help="make its recipes once more and compare every row")] = False,
) -> None:
    """Train named recipes, drive all through the same episodes, ask all the same questions, compare them in pairs. Repeat to continue, start it twice to share the recipes."""
    from vla.study.run import run_study

    run_study(str(config), overrides or [], only or [], report_only, again)


@app.command()
def serve(
    policy: Path,
    host: Annotated[
        str, typer.Option(help="address to listen on; others than this machine's own are open to the network")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    robot: Annotated[Optional[str], typer.Option(help="which of the policy's robots, where it commands several")] = None,
    camera: Annotated[
        Optional[list[str]], typer.Option(help="OURS=THEIRS: the client's name of a camera; repeat the option")
    ] = None,
    state: Annotated[str, typer.Option(help="the client's names whose numbers are the state, with commas")] = "state",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
) -> None:
    """Serve a policy to robot programs: openpi's websocket and OpenVLA's REST on one port (extra [serve])."""
    pairs = [c.partition("=") for c in camera or []]
    if any(not (ours and theirs) for ours, _, theirs in pairs):
        raise typer.BadParameter("--camera: give OURS=THEIRS, for example --camera top=observation/image")
    try:
        from vla.serve.server import run_server
    except ModuleNotFoundError as error:
        raise ValueError(f"vla serve needs the package {error.name}: pip install 'vla[serve]'") from error
    run_server(policy, host, port, robot, {ours: theirs for ours, _, theirs in pairs}, state.split(","), device)


@data_app.command()
def verify(directory: Path) -> None:
    """Compare every shard with its checksum; exit 1 and name the shard if one is damaged."""
    from vla.data.manifest import verify as check

    problems = check(directory)
    for line in problems:
        typer.echo(line, err=True)
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{directory}: all shards are whole")


@data_app.command()
def leaks(directory: Path) -> None:
    """Look for what only the web may teach (names, kinds, pictures) in packed tabletop episodes; exit 1 if there is any."""
    from vla.data.manifest import load_manifest
    from vla.web.leaks import leaks as find

    found = find(load_manifest(directory))
    for line in found:
        typer.echo(line, err=True)
    if found:
        raise typer.Exit(1)
    typer.echo(f"{directory}: nothing of the held-out knowledge is in it")


def main() -> None:
    """Entry point: known mistakes become one line, not a traceback."""
    try:
        app()
    except Stopped as stop:
        typer.echo(f"interrupted: {stop}", err=True)
        raise SystemExit(130) from None
    except (ValueError, FileNotFoundError) as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
