"""Meta-World MT50: 50 manipulation tasks with scripted experts (arXiv 1910.10897).

Importing this package needs no simulator. ``pip install 'vla[metaworld]'`` installs it.
"""

REGISTERS = ("benchmark",)  # modules that register components; see vla.config.registry
