"""One module for each kind of operation that a body can ask for: what is looked up, executed, recorded, waited for.

Not here: what users type (`definitions/step.py`), and how an effect is carried out (`engine/drivers/`).
"""
