"""What shall be: reads presets from sources that may be broken any time, and tells of changes.

A broken file or an unreachable source never removes a preset: its last good spec stays and carries
the error.  This service never looks at a VM, never calls another service, and never hands user data
to a log.
"""
