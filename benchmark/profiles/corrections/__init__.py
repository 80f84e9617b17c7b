"""Batch corrections, as scikit-learn transformers."""
