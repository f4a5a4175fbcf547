"""A calibrated model of training throughput: what one optimizer step takes, term by term.

`step` has the equations of a step, `layer` those of one layer, `kernels` those of one product; `settings` reads every
number they need from `data/throughput.yaml`; `estimate` answers for one architecture, with an interval; `runs` reads a
table of published or measured runs; `calibrate` fits the constants to such a table and judges them on left-out models,
devices and families.
"""
