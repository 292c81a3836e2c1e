"""Stage select: which of the sessions that met the requirements are kept."""
