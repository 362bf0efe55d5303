"""Label Studio: the provider against a real server."""
