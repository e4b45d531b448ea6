"""YAML to validated configuration to objects."""

from vla.config.loader import build, load_config
from vla.config.options import plain
from vla.config.registry import Replaced, Slot, configs_dir, presets, register, registered
from vla.config.validation import check, check_ranges
from vla.config.yaml_files import override, read_yaml
from vla.errors import ConfigError

__all__ = [
    "ConfigError",
    "Replaced",
    "Slot",
    "build",
    "check",
    "check_ranges",
    "configs_dir",
    "load_config",
    "override",
    "plain",
    "presets",
    "read_yaml",
    "register",
    "registered",
]
