"""The Broad Bioimage Benchmark Collection: BBBC013, BBBC014 and BBBC021, as people have them on disk."""
