"""One fold of a method, as a worker process runs it."""
