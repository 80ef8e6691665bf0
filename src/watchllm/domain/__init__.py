"""What things are, without any I/O: ids, keys, money, errors, settings, usage and the snapshot's records."""
