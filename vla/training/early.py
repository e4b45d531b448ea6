"""Checks of a run's values that need no torch: a wrong name or path is refused at once."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

from vla.config.quick import components
from vla.data.location import check_packed
from vla.data.remote import as_folder
from vla.errors import ConfigError, DataError
from vla.models.vision.names import check_base_name
from vla.policies.hub import is_address
from vla.training.config import RunConfig


def check_values(config: RunConfig) -> None:
    """Check the paths of the data and of ``init_from``, and the names of timm models.

    Raises:
        ConfigError: timm has no such model.
        DataError: a folder has no packed data, or no saved policy.
    """
    for path, slot, value in components(config.policy, "policy", "policy"):
        named = (slot, value.get("name")) in (("vision", "timm"), ("policy", "rt1"))
        if named and isinstance(value.get("model"), str):
            check_base_name(value["model"], f"{path}.model")
    for folder in config.data.datasets.values():
        check_packed(as_folder(folder))
    files = ("last.ckpt", "previous.ckpt", "policy")
    started = any(Path(config.output_dir, name).exists() for name in files)
    if not config.init_from or started or is_address(config.init_from):
        return
    if not Path(config.init_from, "policy.yaml").is_file():
        inside = Path(config.init_from, "policy")
        advice = f"did you mean {inside}?" if inside.is_dir() else "train this policy first"
        raise DataError(f"init_from={config.init_from}: not the folder of a policy; {advice}")


def in_new_folder(config: RunConfig) -> RunConfig:
    """``--fresh``: the run with the first of the folders OUT, OUT-2, OUT-3 ... that is not there.

    Raises:
        ConfigError: this is one of several processes, which would choose different folders.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("--fresh: not with several processes; give a new output_dir=FOLDER")
    folder = Path(config.output_dir)
    for number in count(2):
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            folder = Path(f"{config.output_dir.rstrip('/')}-{number}")
    # Lightning starts the other processes with the arguments of this one.
    sys.argv = [*(a for a in sys.argv if a != "--fresh"), f"output_dir={folder}"]
    print(
        f"{folder}: a new run; to continue it, give output_dir={folder} instead of --fresh",
        file=sys.stderr,
    )
    return replace(config, output_dir=str(folder))
