"""Backbones, weights, augmentation and the training loop."""
