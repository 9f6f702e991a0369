"""One module for each kind of operation that a body can ask for: what is looked up, executed, recorded, waited for."""
