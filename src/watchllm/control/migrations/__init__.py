"""Forward-only migrations of the control plane's schema."""
