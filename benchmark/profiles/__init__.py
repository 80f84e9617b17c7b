"""Single cells to well profiles to normalised, selected profiles."""
