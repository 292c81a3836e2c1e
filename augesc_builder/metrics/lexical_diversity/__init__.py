"""Distinct n-grams and Figure 5."""
