"""Which provider answers a model's name: pure decisions over the snapshot's records."""
