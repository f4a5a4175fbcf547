"""The search: its variables, the grid of designs, each law's reference optimum, and every design's score."""
