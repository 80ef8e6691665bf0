"""The Anthropic dialect: messages, streamed and not."""
