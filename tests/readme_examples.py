"""The complete examples of ``vla/README.md``, each under ``<!-- example: path -->``."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from conftest import REPOSITORY

PAGE = REPOSITORY / "vla" / "README.md"
_EXAMPLE = re.compile(r"<!-- example: (\S+) -->\n```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CODE = dict(_EXAMPLE.findall(PAGE.read_text(encoding="utf-8")))


def load_example(name: str, folder: Path) -> ModuleType:
    """Write the example whose file is ``name``.py into ``folder`` and import it from there."""
    (code,) = [code for path, code in CODE.items() if Path(path).stem == name]
    path = folder / f"{name}.py"
    path.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
