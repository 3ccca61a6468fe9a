"""The stores this package brings, one a module; `vmshepherd_kit.drivers` finds them by their entry
points.
"""
