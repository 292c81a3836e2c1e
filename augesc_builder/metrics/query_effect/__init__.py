"""Figure 3: the length of queries and of what they trigger."""
