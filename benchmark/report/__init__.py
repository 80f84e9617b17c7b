"""Figures, the page and the printed table; reads comparisons and run records only."""
