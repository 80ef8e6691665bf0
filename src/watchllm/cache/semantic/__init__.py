"""Whether the answer to one prompt is right for another: what two prompts say, what differs, and what follows.

Pure functions of their arguments: no store, no socket, no clock. Word lists and the model's weights are data beside
them, read when they are first needed.
"""
