"""Treatment aggregation, metrics and statistics: pure functions of prediction tables."""
