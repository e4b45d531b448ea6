"""Connectors: image tokens of the encoder's width to the decoder's width."""
