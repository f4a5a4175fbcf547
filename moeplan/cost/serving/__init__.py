"""The costs of serving.

`roofline` bounds decode from above; `throughput` says what a group of devices reaches on a mix of prompts and answers,
by a few constants that are fitted to published figures (`published`).
"""
