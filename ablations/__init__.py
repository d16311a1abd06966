"""The studies that come with dual-bench: TOML files, installed as ``dual_bench.studies``."""
