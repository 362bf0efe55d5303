"""Every printed figure, each with its peer measured beside it in the same run.

``python -m benchmarks.NAME [--quick] [--json]``
"""
