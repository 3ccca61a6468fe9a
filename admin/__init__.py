"""The `vmshepherd` command: it brings the suite up, runs one service, and asks the admin API.

Everything it shows comes from the orchestrator's API, as it would for any other client; it decides
nothing about VMs and talks to no cloud.  Modules named like a command hold that command's options;
what is heavy to import (gRPC, Rich, the services) is imported when a command runs, so that `--help`
is instant.
"""
