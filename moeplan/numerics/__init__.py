"""Numerical methods that know nothing of models: branch and bound over boxes of designs."""
