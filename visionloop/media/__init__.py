"""Media: decode, verify, fingerprint and measure images; read the metadata beside them."""
