"""Rendered stand-ins for the real data sets: same folders, same tables, labels that say what was drawn.

`from phantoms.olives import write_olives` and `from phantoms.mimic import write_mimic` work in every test.
"""
