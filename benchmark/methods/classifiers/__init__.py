"""What decides on tables of features."""
