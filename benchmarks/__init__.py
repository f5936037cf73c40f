"""Commands that reproduce every figure the docs quote.

`python -m benchmarks.NAME [--seeds ...] [--quick] [--jobs N] [overrides...]`
"""
