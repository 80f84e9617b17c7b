"""Single-cell tables: in memory, as a folder of parquet files, and CellProfiler's object names."""
