"""Other decoding engines, each run in its own environment (``make bench-peers``).

A module here runs as ``python -m benchmarks.peers.NAME`` from the root of a clone, in an
environment where nothing of augesc can be imported; ``benchmarks/generation_rivals.py`` is the
other side.
"""
