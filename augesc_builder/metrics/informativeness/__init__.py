"""What each turn adds to what was said before."""
