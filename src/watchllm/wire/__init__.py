"""HTTP/1.1 and server-sent events on asyncio: a server, a pooled client and their bounds. Knows nothing of LLMs."""
