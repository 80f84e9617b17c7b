"""The HDF5 crop cache: build, verify, read."""
