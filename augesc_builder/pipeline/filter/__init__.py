"""Stage filter: the requirements, what meets them, and the report of Table 1."""
