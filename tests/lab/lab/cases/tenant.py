"""Tenant networks behind a gateway port that this node hosts."""

from ..pod import environment
from ..shell import run


def hosts(world):
    world.ready_pod(settings={"expose_tenant_networks": "True"})
    mark = world.watch.mark()
    address, _ = world.private_server("tenant-server")
    world.at_leaf(address, mark, "the server's tenant address is at the leaf")
    world.check("the server answers the leaf's ping", address, world.ping(address))


def subnet(world):
    mark = world.watch.mark()
    world.ready_pod(settings={"expose_tenant_networks": "True", "advertisement_method_tenant_networks": "subnet"},
                    # Without it only single addresses leave.
                    change=environment(FRR_NO_OUTBOUND_FILTER="true"))
    world.at_leaf("192.168.0.0/16", mark, "the subnet is at the leaf")
    address, _ = world.private_server("subnet-server")
    world.check("a server of it answers the leaf's ping", address, world.ping(address))
    run("ip route flush table 210", netns="n1", check=False)
