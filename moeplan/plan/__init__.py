"""From a budget to a plan: the search, the chosen design, what is said of it, its uncertainty, and its export."""
