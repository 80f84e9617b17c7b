"""Reading and checking pixels."""
