"""What says how well a turn fits what was said before; any of them can rank it."""
