"""Training: small and torchvision networks, deterministic, exported to ONNX as a model bundle."""
