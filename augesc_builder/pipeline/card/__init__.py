"""Stage card: the dataset card."""
