"""What every room may use: errors, settings, logs, paths, records, system calls."""
