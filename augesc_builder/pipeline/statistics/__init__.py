"""Stage statistics: Table 2, Figures 3 to 5, and more."""
