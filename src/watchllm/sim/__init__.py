"""The simulated provider: an upstream that speaks OpenAI's dialects and Anthropic's, with deterministic answers and
knobs for everything that goes wrong at real ones. Tests, the demo, the benchmarks and a first run without any provider
key talk to it."""
