"""Export targets, one module each: its docstring's first line is the target's name in lists.

A module has `export(job, layout) -> str`, the text of a file, and `TAKES_LAYOUT`, whether a layout has a place in it.
It may have `notes(job)`, sentences on what the trainer does not do, and `PRECISIONS`, where it says those beside bf16.
"""
