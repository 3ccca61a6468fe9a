"""The shared kernel of the suite: it knows gRPC and knows nothing of VMs.

Every service, the orchestrator and the command build on it: one way to serve, to dial, to fail,
to find drivers, to read settings, to tell the time.  It never imports a service, and nothing in
it starts by being imported.
"""

import os

# gRPC reads this when it is first imported.  Our children are started by exec and speak no gRPC:
# its preparations for forks only cost, and complain on standard error.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# Its own lines on standard error repeat, in other words, what reaches us as errors.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
