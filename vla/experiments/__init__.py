"""Studies and scaling ladders."""
