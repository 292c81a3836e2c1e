"""What a corpus repeats of its training data."""
