"""``vla plan``: what a run needs, from shapes alone."""
