"""A cloud of this machine: a VM is a process with a folder and a loopback address of its own.

    cloud      the driver: what iaas_service calls
    folder     the files of one VM, all that outlives the service
    machine    one VM, as it is now
    launch     starting a process in a folder, so that it is never started twice
    proc       what the kernel says of a process, and telling it to end
    watch      hearing of its end at once
    addresses  who has which 127.x.y.z
    guest      what runs in a VM that was told nothing else; never imported

A VM outlives iaas_service and is found again by the next one.  For laptops, tests and small things:
its VMs are as isolated as any two processes of one user, which is not at all.
"""

from .cloud import ProcessCloud
from .options import ProcessOptions

__all__ = ["ProcessCloud", "ProcessOptions"]
