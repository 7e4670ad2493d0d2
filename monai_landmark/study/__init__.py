"""The label-budget study: what each start is worth at each number of labels."""
