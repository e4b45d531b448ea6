"""LIBERO: four suites of ten manipulation tasks in robosuite (arXiv 2306.03310).

Importing this package needs no simulator. ``pip install 'vla[libero]'`` installs it.
"""

REGISTERS = ("benchmark",)  # modules that register components; see vla.config.registry
