"""Language decoders. The interface is ``base.Decoder``."""
