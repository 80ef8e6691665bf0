"""Stores in memory-mapped LMDB files: shared by the processes of a host, crash-safe, nothing to load at start."""
