"""What a model, a corruption and a corpus promise, as checks that any part can be put to: ``dual-bench check``."""
