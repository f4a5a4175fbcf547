"""Training on many GPUs: layouts, memory by stage and moment, optimizer states, the time of a step."""
