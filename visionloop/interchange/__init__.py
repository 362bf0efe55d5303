"""Annotated sets of other tools: read and written, record by record."""
