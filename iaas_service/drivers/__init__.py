"""Drivers of iaas_service: one cloud each, found by the entry points `vmshepherd.drivers.iaas`.

A driver translates; it holds no gate, no budget and no token: these stand in the service, once for
all clouds.
"""
