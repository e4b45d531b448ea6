"""Action heads: from the decoder's hidden states or tokens to actions."""
