"""The orchestrator: observes presets, decides what each needs next, and has it done by the four
services.

It alone calls the others, keeps nothing that the store or the cloud does not know, and never talks
to a cloud, a VM or a file of presets by itself. What it decides is decided in pure files (`decide`
and its neighbours): the shell around them asks and acts.
"""
