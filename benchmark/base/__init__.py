"""What every room is built on: errors, files, table columns, settings, tasks and the scheduler."""
