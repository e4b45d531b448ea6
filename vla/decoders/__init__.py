"""Language decoders: anything with ``width``, ``tokenizer``, ``embed``, ``forward`` and ``logits``."""
