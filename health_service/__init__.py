"""Health: probes what runs inside the VMs, and says HEALTHY, UNHEALTHY or UNKNOWN.

It keeps nothing between two requests, knows no presets, counts no failures and never acts upon a
verdict. What it cannot see, it calls UNKNOWN: its own troubles are no fault of a VM.
"""
