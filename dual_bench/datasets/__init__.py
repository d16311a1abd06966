"""Corpora: each module has a load(**settings) -> Corpus."""
