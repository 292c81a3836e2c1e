"""Stage statistics: Table 2, figures after the paper's, and more."""
