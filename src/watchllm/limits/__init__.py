"""What a request may take of what there is, and whose turn it is when there is not enough. Decisions, without I/O."""
