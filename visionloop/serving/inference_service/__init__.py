"""Models behind a KServe InferenceService: documents, rollouts, and what its pods answer."""
