"""How :mod:`zcpt_jax.nn.capture` looks inside networks, loops over layers included.

``_markers.py`` has the Flax modules that mark places of a network, ``_sites.py`` finds
what to look at in a module, ``_loops.py`` calls back at what it found, inside loops
too, with the interpreters of ``_jaxprs.py``; ``_maxima.py`` finds the ReLUs of networks
that do not mark them.
"""
