"""Seekers that models play, who talk to dialog systems: a simulation, beside people."""
