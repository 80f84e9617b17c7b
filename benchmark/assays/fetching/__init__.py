"""Downloading, checking and unpacking the collections."""
