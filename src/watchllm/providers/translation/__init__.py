"""Requests, answers and streams from one dialect to another; `chat` is the hub."""
