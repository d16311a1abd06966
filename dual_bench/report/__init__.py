"""The report of a run: views over stored rows, drawn and written without torch."""
