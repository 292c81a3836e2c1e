"""Measurements of a corpus, each an ``evaluate.Measurement`` in a folder of its own."""
