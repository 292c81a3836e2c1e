"""Human evaluation (sections 6 and 7 of the paper): studies, from the corpora to significance."""
