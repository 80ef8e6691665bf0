"""The source of truth when it grows: PostgreSQL, with usage partitioned by day."""
