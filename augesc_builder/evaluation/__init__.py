"""Dialog models, or two of them, judged without people."""
