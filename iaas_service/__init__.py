"""iaas_service: VMs of its providers, behind gates that no caller can skip.

It holds the credentials of the clouds and the budgets of destruction; it decides nothing: which VM
should exist is the orchestrator's business.  It never calls another service, and never touches a VM
that does not bear the suite's marker.
"""
