"""The only place where folds are made, hashed and audited."""
