"""Translations between the wire formats of providers, with chat completions as the hub: one file per pair and kind."""
