"""What a model costs: devices, memory and speed of serving, memory and time of training."""
