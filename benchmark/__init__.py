"""morphobench: fair comparison of CellProfiler profiles and fine-tuned CNNs on one assay."""

__version__ = "0.1.0"
