"""The daemon as a service: its settings while it runs, and what systemd is told and asked."""
