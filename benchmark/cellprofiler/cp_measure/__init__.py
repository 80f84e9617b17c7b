"""CellProfiler's measurements as functions, where CellProfiler itself cannot be installed."""
