"""What happens to words on their way to a model, and how much of it happened."""
