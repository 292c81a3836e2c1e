"""What the README's figures come from: each script prints a table."""
