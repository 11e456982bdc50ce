"""Interception of intermediates for :mod:`zcpt_jax.nn.capture`, including in loops.

``_markers.py`` has the Flax modules that mark places of a network, ``_sites.py`` finds
the sites to intercept in a module, ``_loops.py`` calls back at these sites, also inside
loops, with the interpreters of ``_jaxprs.py``, and ``_maxima.py`` finds the ReLUs of
networks that do not mark them.
"""
