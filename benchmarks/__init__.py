"""Figures against other runtimes, side by side; run from the root of a checkout."""
