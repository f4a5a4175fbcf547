"""First screens: what a command answers before anyone asks for more, one module a command.

A first screen is sections like any report's (`moeplan.report.blocks`), made of the same numbers as the JSON, each with
its place there; it has at most 40 lines at 100 columns and 45 at 80. The whole report is `--full`, parts of it
`--section NAME`. The warnings and their order are data: `moeplan/data/warnings.yaml`.
"""
