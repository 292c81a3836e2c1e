"""Finished runs beside each other: the same table of each, and what differs between them."""
