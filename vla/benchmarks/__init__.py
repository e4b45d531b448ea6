"""Benchmarks: simulators with tasks behind one interface, see ``vla.benchmarks.base``."""
