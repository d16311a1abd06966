"""DUAL, its rivals, and the layers and losses they share."""
