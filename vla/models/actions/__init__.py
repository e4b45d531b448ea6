"""Action codecs: normalised actions to symbols and token ids, and back."""
