"""The integer shape of a model, its exact counts, how papers count it, and reading it from published configs."""
