"""Whether speakers contradict themselves, and keep to their roles."""
