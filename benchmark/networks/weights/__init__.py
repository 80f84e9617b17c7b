"""Pretrained weights: where they come from, and fitting them to an assay's channels and labels."""
