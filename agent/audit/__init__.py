"""`job=audit`: what stored episodes are, where they come from, and what is wrong with them."""
