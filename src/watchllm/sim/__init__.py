"""The simulated provider: an OpenAI-compatible upstream with deterministic answers and knobs for everything that goes
wrong at real ones. Tests, the demo, the benchmarks and a first run without any provider key talk to it."""
