"""Pre-training objectives on films without annotation."""
