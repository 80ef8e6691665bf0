"""The embedded source of truth: SQLite in WAL mode."""
