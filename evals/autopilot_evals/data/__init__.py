"""Reviewed data that is shipped: what experts would accept, with reasons."""
