"""One file a kind of method."""
