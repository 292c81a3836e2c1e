"""Stage queries: which posts become triggers."""
