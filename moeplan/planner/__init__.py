"""The planner in the browser: the questions of `moeplan recommend` as a form, the plan beside it as they change."""
