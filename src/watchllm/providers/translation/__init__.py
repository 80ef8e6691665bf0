"""Requests, answers, streams and errors of one dialect in the form of another."""
