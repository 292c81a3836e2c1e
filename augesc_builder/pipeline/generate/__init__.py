"""Stage generate: queries into raw conversations."""
