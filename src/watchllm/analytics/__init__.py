"""What usage adds up to: tables, rollups, queries and export."""
