"""Settings: recipes and training configs, read from YAML and checked."""
