"""The management API: JSON under `/api` on the console's port, for scripts with a management token."""
