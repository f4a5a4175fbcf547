"""Questions beyond one plan: comparisons, frontiers, back-tests, inspections."""
