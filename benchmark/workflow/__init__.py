"""The study file, and the steps from it to a page."""
