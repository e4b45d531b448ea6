"""Action heads: how a policy's decoder is used to make actions."""
