"""Brings the configuration of a LiteLLM proxy over: what it says is read into a plan, and the plan is applied at once.

What has no counterpart is never dropped silently: each such line is named with its place in the file and the reason.
"""

from watchllm.control.litellm.applying import Imported, apply
from watchllm.control.litellm.reading import read

__all__ = ["Imported", "apply", "read"]
