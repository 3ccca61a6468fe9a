"""Whose turn it is, and what must not be forgotten: sessions, locks with fencing tokens, versioned
states, the journal.

Orchestrators ask it; it calls nobody.  It never reads what a state says, never decides who should
hold a lock, never compares two hosts' clocks, and never deletes the token of a name.
"""
