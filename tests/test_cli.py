"""The command line: help, one-line errors, and the verbs that need no training."""

from __future__ import annotations

import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY

from vla.cli import main
from vla.cli.boundary import install_command
from vla.data.verification import verify

VLA = [sys.executable, "-c", "from vla.cli import main; main()"]


def vla(*args: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*VLA, *args], capture_output=True, text=True, timeout=timeout, cwd=REPOSITORY
    )


def test_help_imports_no_heavy_package() -> None:
    heavy = ["torch", "lightning", "transformers", "pydantic", "gymnasium", "scipy", "starlette"]
    code = (
        "import sys\nfrom vla.cli import main\nsys.argv = ['vla', '--help']\n"
        "try:\n    main()\nfinally:\n"
        f"    print('imported', *sorted(set({heavy}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported"
    for verb in ("pack", "train", "eval", "eval-offline", "eval-vqa", "serve", "zoo", "data"):
        assert f" {verb} " in done.stdout


def test_help_takes_a_few_times_as_long_as_an_empty_python() -> None:
    """A ratio, because absolute times depend on the machine and its load."""

    def seconds(command: list[str]) -> float:
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY)
        return time.perf_counter() - start

    pairs = [(seconds([*VLA, "--help"]), seconds([sys.executable, "-c", ""])) for _ in range(3)]
    assert statistics.median(help / empty for help, empty in pairs) < 60


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["train", "configs/demo_tokn.yaml"],
            r"error: configs/demo_tokn\.yaml: no such configuration; did you mean 'demo_token'",
        ),
        (
            ["train", "configs/demo_token.yaml", "train.stepz=1"],
            r"error: train\.stepz: unknown key; did you mean 'steps'",
        ),
        (["eval", "nowhere"], r"error: nowhere: no such folder"),
        (
            ["eval", "nowhere", "--benchmark", "a", "--env", "b"],
            r"give --benchmark or --env, not both",
        ),
        (["eval", "nowhere", "--split", "train"], r"No such option:? '?--split"),
        (["data", "verify", "nowhere"], r"error: nowhere: no such data folder"),
        (
            ["pack", "configs/pack/demo_robot.yaml", "x", "source.episodes=0"],
            r"error: x: the source has zero episodes",
        ),
        (["serve", "nowhere", "--camera", "top"], r"--camera: give OURS=THEIRS"),
        (["zoo", "--measure"], r"error: zoo: --measure and configurations belong together"),
    ],
)
def test_errors_are_reported_without_a_traceback(
    args: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In this process, because each start of the command imports for seconds."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, "argv", ["vla", *args])
    with pytest.raises(SystemExit) as stop:
        main()
    error = capfd.readouterr().err
    assert stop.value.code == 2 and "Traceback" not in error
    # typer wraps usage errors in a box
    text = " ".join(line.strip("│ ") for line in error.splitlines())
    assert re.search(message, text), error
    if message.startswith("error"):
        assert len(error.strip().splitlines()) == 1


def test_a_missing_optional_package_is_one_line_with_theinstall_command() -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None; sys.argv = ['vla', 'serve', 'nowhere']\n"
        "from vla.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, timeout=300
    )
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("error: the package uvicorn is missing; install it: pip install ")


def test_theinstall_command_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ["av>=14; extra == 'data'", "av>=14; extra == 'dev'", 'typing-x>1 ; extra == "ray"']
    monkeypatch.setattr("vla.cli.boundary.requires", lambda _: listed)
    assert install_command("av") == "pip install 'vla[data]'"
    assert install_command("typing_x") == "pip install 'vla[ray]'"
    assert install_command("other") == "pip install other"


def test_ctrl_c_is_one_line_and_exit_code_130() -> None:
    code = (
        "import signal, os, vla.cli.data\n"
        "from vla.cli import main\n"
        "import vla.data.verification as m\n"
        "m.verify = lambda _: os.kill(os.getpid(), signal.SIGINT)\n"
        "import sys; sys.argv = ['vla', 'data', 'verify', 'nowhere']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, timeout=300
    )
    assert done.returncode in (130, -signal.SIGINT)
    assert done.stderr.strip() == "interrupted"


def test_pack_then_verify(tmp_path: Path) -> None:
    small = ["source.episodes=4", "source.size=32", "shard_size=2"]
    done = vla("pack", "configs/pack/demo_robot.yaml", str(tmp_path / "d"), *small)
    assert done.returncode == 0 and "4 episodes" in done.stdout
    assert verify(tmp_path / "d") == []
    shard = tmp_path / "d" / "shard-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    done = vla("data", "verify", str(tmp_path / "d"))
    assert done.returncode == 1 and "shard-000001.tar" in done.stderr


@pytest.mark.slow
def test_the_short_demo_writes_its_report_and_a_second_call_reuses_its_work(
    tmp_path: Path,
) -> None:
    start = time.perf_counter()
    done = vla("demo", "--short", "--out", str(tmp_path), timeout=900)
    first = time.perf_counter() - start
    assert done.returncode == 0, done.stderr[-2000:]
    page = (tmp_path / "short" / "report.html").read_text()
    assert "it teaches nothing" in page and "it teaches nothing" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["short"]  # no collision with the whole demo
    assert page.count("data:image/") == 3 and "Q: what action should the robot take to" in page
    assert "http" not in page.split("</style>")[1]
    start = time.perf_counter()
    assert vla("demo", "--short", "--out", str(tmp_path), timeout=900).returncode == 0
    assert time.perf_counter() - start < first / 2
