"""A real OpenStack of Debian 12's packages, on loopback, whose hypervisors are Nova's fake ones.

`python3 -m tests.openstack.cloud up|keep|down` starts and ends it in a folder of its own; README.md
beside this folder tells how to use it.  Nothing but the standard library is needed here, so that
any Python 3.11 does.
"""
