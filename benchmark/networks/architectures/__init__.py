"""Networks of our own: one file an architecture."""
