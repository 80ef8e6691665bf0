"""The OpenAI dialect: chat completions, legacy completions and embeddings, streamed and not."""
