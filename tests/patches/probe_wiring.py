"""Probes of what the drivers wire, announce and withdraw."""

from unittest import mock

from stubs import Row, nb_driver

ROUTER = "3ba3b1d1-7d0b-4d3a-9a9c-1c7b1b6f8f10"


def router_name_prefix():
    """a tenant network is announced whatever neutron calls the router of its gateway port"""
    from oslo_config import cfg

    from ovn_bgp_agent.drivers.openstack.utils import port as port_utils

    cfg.CONF.set_override("expose_tenant_networks", True)
    for name in (ROUTER, f"neutron-{ROUTER}"):
        gateway = Row(
            name="lrp-gateway",
            mac="fa:16:3e:00:00:01",
            networks=["172.24.4.10/24"],
            external_ids={"neutron:network_name": "neutron-public", "neutron:router_name": name},
        )
        assert port_utils.make_lrp_dict(gateway)["router"] == ROUTER, "an event finds another router"

        driver = nb_driver()
        driver.is_ls_provider = lambda switch: True
        driver.ovn_provider_ls["neutron-public"] = {"localnet": "provnet", "bridge_device": "br-ex", "bridge_vlan": None}
        driver._expose_provider_port = lambda *args: True
        driver._expose_lbs = mock.Mock()
        driver._expose_subnet = mock.Mock()
        attached = Row(external_ids={"neutron:device_id": ROUTER, "neutron:cidrs": "10.0.0.1/24"})
        driver.nb_idl.get_active_local_lrps = lambda routers: [attached] if ROUTER in routers else []
        driver._ensure_crlrp_exposed(gateway)

        assert list(driver.ovn_local_cr_lrps) == [ROUTER], driver.ovn_local_cr_lrps
        assert driver._expose_subnet.call_count == 1, "the tenant network is not announced"


PROBES = {"0011": router_name_prefix}
