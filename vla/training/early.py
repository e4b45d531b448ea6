"""Checks of a run's values that need no torch: a wrong name or path is refused at once."""

from __future__ import annotations

from pathlib import Path

from vla.config.quick import components
from vla.data.location import check_packed
from vla.errors import DataError
from vla.models.vision.names import check_base_name
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
        check_packed(Path(folder))
    started = any(Path(config.output_dir, name).exists() for name in ("last.ckpt", "policy"))
    if config.init_from and not started and not Path(config.init_from, "policy.yaml").is_file():
        inside = Path(config.init_from, "policy")
        advice = f"did you mean {inside}?" if inside.is_dir() else "train this policy first"
        raise DataError(f"init_from={config.init_from}: not the folder of a policy; {advice}")
