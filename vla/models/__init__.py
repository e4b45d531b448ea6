"""Networks: vision encoders, connectors, language decoders, action heads and action codecs."""
