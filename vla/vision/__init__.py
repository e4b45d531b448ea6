"""Vision encoders: uint8 images to tokens. Anything with ``width`` and ``forward(images_BCHW) -> (B, N, D)``."""
