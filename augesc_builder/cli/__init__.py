"""The command line, in files by what a command is about."""
