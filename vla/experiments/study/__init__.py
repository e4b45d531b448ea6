"""Studies: named recipes, evaluated on the same tasks and compared in pairs."""
