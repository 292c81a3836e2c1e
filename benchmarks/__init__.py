"""What the figures of README and docs come from: each script prints a table."""
