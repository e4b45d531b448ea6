"""Checks that every component and benchmark must pass; packages with plug-ins call them too.

::

    from vla.testing import check_benchmark, check_component

    def test_encoder():
        check_component("vision", "my_encoder", width=32)
"""

from vla.testing.benchmarks import check_benchmark
from vla.testing.components import SLOTS, check_component

__all__ = ["SLOTS", "check_benchmark", "check_component"]
