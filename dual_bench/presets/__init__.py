"""Settings that ``dual-bench tune`` chose, one TOML file a corpus, and beside it the trials they were chosen from."""
