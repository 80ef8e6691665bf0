"""The semantic cache's decisions: how good they are (`evaluate`), and how its model came about (`train`)."""
