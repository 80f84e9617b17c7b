"""Measurements that exist already: profile tables and CellProfiler's own exports."""
