"""Views of a running sweep: live table, plain lines, and the dashboard."""
