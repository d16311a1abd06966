"""dual-bench: how much an emotion model leans on the words, measured with its uncertainty."""
