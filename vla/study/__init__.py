"""Studies: named recipes that are trained, tested on the same cells and compared in pairs."""
