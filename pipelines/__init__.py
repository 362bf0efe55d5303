"""Compositions of the components, where their tasks run, and the registry of them."""
