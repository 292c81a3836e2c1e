"""A model behind an address: how it is asked, how fast, and what of it is on disk."""
