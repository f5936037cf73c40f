"""`job=plan`: what a run will take, from its config alone."""
