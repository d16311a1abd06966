"""Raw media and words to arrays, cached by content."""
