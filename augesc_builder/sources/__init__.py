"""Public corpora and files, read into sessions or queries. A module a corpus."""
