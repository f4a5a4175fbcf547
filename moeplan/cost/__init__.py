"""The costs of a model: devices, memory and speed of serving, memory and time of training."""
