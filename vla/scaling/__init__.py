"""Scaling curves: a ladder of runs, one table of results, the fits and the figures."""
