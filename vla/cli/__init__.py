"""The ``vla`` command: one module per area, verbs that only call the library.

Heavy imports happen inside the verbs, so that ``vla --help`` is quick.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, NoReturn

import typer

import vla
from vla.cli import (
    bench,
    bench_check,
    data,
    diagnose,
    evaluate,
    experiments,
    export,
    hub,
    info,
    inspect,
    plan,
    serve,
    train,
    zoo,
)
from vla.cli.boundary import run

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Train, evaluate and serve vision-language-action policies. "
    "'vla COMMAND --help' shows the options of a command.",
)
_PANELS: dict[str, dict[str, Callable[..., None]]] = {
    "Data": {
        "pack": data.pack,
        "record": data.record,
        "inspect": inspect.inspect,
        "doctor": data.doctor,
        "replay": data.replay,
    },
    "Policies": {
        "plan": plan.plan,
        "train": train.train,
        "eval": evaluate.evaluate,
        "eval-offline": evaluate.evaluate_offline,
        "eval-vqa": evaluate.evaluate_vqa,
        "serve": serve.serve,
        "bench": bench.bench,
        "bench-check": bench_check.bench_check,
        "bench-server": serve.bench_server,
        "info": info.info,
        "client": info.client,
        "export": export.export,
        "merge": export.merge,
        "push": hub.push,
        "diagnose": diagnose.diagnose,
    },
    "Components": {"zoo": zoo.zoo},
    "Experiments": {
        "demo": train.demo,
        "scale": experiments.scale,
        "study": experiments.study,
    },
}
for _panel, _verbs in _PANELS.items():
    for _name, _verb in _verbs.items():
        app.command(_name, rich_help_panel=_panel)(_verb)
app.add_typer(data.app, name="data", rich_help_panel="Data")


_SHOWN = ("torch", "lightning", "timm", "transformers")  # packages of --version


def _version(shown: bool) -> None:
    """Print the versions and the device, and end the program."""
    if not shown:
        return
    lines = [f"vla {vla.__version__}", f"python {platform.python_version()}"]
    for package in _SHOWN:
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package} is not installed")
    from vla.utils.device import describe

    typer.echo("\n".join([*lines, f"device {describe()}"]))
    raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_version, help="show versions and the device"
        ),
    ] = False,
) -> None:
    """Options of the command itself."""


def main() -> NoReturn:
    """Entry point: an exception becomes one line and an exit code, see ``vla.cli.boundary``."""
    run(app)
