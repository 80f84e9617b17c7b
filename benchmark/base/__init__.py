"""What every room rests on: errors, files, table columns, settings, tasks and the scheduler."""
