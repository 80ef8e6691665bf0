"""Stores in Redis: what several proxies, on one host or many, share."""
