"""How the folds of a kind run: what they share, the task of each, what the record says. Workers are loaded late."""
