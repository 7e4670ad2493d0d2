"""What a person runs: prediction, the demo, and their command line."""
