"""The tabletop benchmark: a simulated robot arm above a table, its demonstrations and web data.

Importing this package needs no simulator. ``pip install 'vla[tabletop]'`` installs the simulator.
``gymnasium.make("vla.benchmarks.tabletop:vla/Tabletop-v0")`` imports it and makes an environment.
"""

import gymnasium

REGISTERS = ("benchmark", "sources")  # modules that register components; see vla.config.registry

gymnasium.register("vla/Tabletop-v0", entry_point="vla.benchmarks.tabletop.env:Tabletop")
