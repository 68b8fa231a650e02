"""The OpenAI-compatible server on loopback: checks who asks, calls the facade, answers.

Nothing of the method is here. ``tokens`` needs no web framework; everything else needs the
extra ``server`` and is imported only when a server is started.
"""
