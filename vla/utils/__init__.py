"""Helpers that depend on nothing else in the package but its errors."""
