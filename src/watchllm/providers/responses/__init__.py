"""The wire format of OpenAI Responses."""
