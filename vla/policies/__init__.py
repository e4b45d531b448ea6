"""Policies as LightningModules."""
