"""How far a fitted law leaves its own answer open: the plan found again under draws of the law's coefficients."""
