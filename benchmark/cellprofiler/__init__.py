"""CellProfiler: finding and installing it, headless shards, checking and ingesting what it wrote."""
