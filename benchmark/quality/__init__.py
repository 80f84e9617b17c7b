"""Which fields a study leaves out, and why."""
