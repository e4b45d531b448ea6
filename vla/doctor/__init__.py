"""``vla doctor``: defects of robot data, and its fit to a saved policy."""
