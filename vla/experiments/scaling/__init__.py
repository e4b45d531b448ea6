"""Scaling ladders: runs of several sizes, their table, fits and figures."""
