"""The product's figures, each measured beside a yardstick on the same machine in the same run: `python -m benchmarks`.

One module per figure, with `run(bench) -> list[Row]`. docs/performance.md says what each one means.
"""
