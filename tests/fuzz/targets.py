"""All targets of fuzzing."""

from __future__ import annotations

from fuzz import asked, files, noise, tables, writers

TARGETS = (*tables.TARGETS, *asked.TARGETS, *files.TARGETS, *noise.TARGETS, *writers.TARGETS)
