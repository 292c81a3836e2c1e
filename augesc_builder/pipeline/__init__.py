"""Section 4 of the paper, a room a stage; :mod:`.build` is the summary of the whole project."""
