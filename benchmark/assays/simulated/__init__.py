"""An assay drawn by code, for a first run anywhere."""
