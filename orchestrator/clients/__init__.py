"""The four services as the orchestrator sees them: stubs in, values of `model` out.

What many presets ask for at the same moment leaves as one RPC (`batch`); every failure is one of
the kit's errors.
"""
