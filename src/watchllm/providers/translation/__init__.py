"""Requests, answers, streams and errors of one dialect in the words of another."""
