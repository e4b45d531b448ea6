"""Robot units to bins to token ids, and back."""
