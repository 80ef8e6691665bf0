"""Answers to questions asked in other words: what of a request is compared by meaning, when, and what is kept.

What decides is in `cache/semantic`; nothing of it, or of the libraries it needs, is loaded before the socket listens.
"""
