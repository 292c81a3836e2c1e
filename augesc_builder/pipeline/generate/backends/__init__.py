"""Ways to make texts of tasks, one file each."""
