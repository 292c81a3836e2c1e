"""Figure 4: the words that tell sets apart."""
