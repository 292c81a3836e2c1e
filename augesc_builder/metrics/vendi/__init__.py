"""The Vendi score."""
