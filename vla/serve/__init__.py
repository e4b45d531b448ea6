"""A saved policy behind the wire protocols that robot programs already speak."""
