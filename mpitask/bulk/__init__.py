"""`map`: one function over many items, in pieces, with results as they arrive, and reduction on the workers.

A thread feeds the engine pieces of the items, a few ahead of the workers, so that neither a billion numbers nor an
endless generator fill the memory. maps.py is what the script sees; cutting.py says how items become tasks, formula.py
which items need not be sent, calls.py what workers do. Workers import calls.py and formula.py only, so nothing is
imported here.
"""
