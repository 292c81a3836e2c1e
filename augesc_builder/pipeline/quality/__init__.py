"""Stage ``quality``: what section 6.4 finds wrong with such a corpus, measured."""
