"""One file a kind of method: its settings, its words for the report, what it needs, and how its folds run."""
