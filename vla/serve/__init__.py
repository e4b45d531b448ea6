"""A saved policy behind the protocols that robot programs already use."""
