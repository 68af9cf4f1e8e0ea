"""The form: a field for every setting, and the plan beside it."""
