"""Architectures: each of our own registers itself when it is imported here; every other name is a network of timm."""

from benchmark.networks.architectures import mcnn, mil

__all__ = ["mcnn", "mil"]
