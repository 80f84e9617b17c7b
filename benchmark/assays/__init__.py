"""What was imaged: each source gives the same validated field table."""
