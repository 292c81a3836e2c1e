"""Files as they come: JSON lines, Parquet, chunks of both, downloads."""
