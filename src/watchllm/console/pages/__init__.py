"""The console's pages; none of them knows another."""
