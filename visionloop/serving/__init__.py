"""Serving: the predictor, the collector of what it logs, and the harvest of those events."""
