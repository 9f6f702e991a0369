"""Starting a workflow: choosing one, the form, and the fields that are made for the type of its input.

Not here: whether an input fits, which the workflow says when it is started (`definitions`).
"""
