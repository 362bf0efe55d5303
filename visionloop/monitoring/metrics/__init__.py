"""A loop's health as Prometheus reads it: the report's numbers, and times that the lake holds."""
