"""Closed-loop and offline evaluation."""
