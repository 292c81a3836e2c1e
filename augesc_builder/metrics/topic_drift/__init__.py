"""Whether the supporter keeps to what the seeker speaks of."""
