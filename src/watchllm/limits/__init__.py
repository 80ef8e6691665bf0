"""Limits, quotas and budgets: what may still be used, decided before a call and settled after it; no I/O."""
