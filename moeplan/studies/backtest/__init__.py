"""The laws against published measurements: `moeplan.studies.backtest.run.backtest()`."""
