"""Probes of what the drivers wire, announce and withdraw."""

import errno
from unittest import mock

from stubs import Route, Row, nb_driver

ROUTER = "3ba3b1d1-7d0b-4d3a-9a9c-1c7b1b6f8f10"
PUBLIC = "neutron-public"


def routing_tables():
    """the base wiring fills in the routing tables of the driver"""
    from oslo_config import cfg
    from ovn_bgp_agent.drivers.openstack.utils import wire

    cfg.CONF.set_override("exposing_method", "underlay")
    idl = mock.Mock()
    idl.get_network_vlan_tag_by_network_name.return_value = []
    ovs_idl = mock.Mock()
    ovs_idl.get_ovn_bridge_mappings.return_value = ["public:br-ex"]
    tables = {}
    with mock.patch.object(wire, "linux_net") as linux_net, mock.patch.object(wire, "ovs"):
        linux_net.ensure_routing_table_for_bridge = lambda tables, bridge, vrf: tables.update({bridge: 200})
        wire.ensure_base_wiring_config(idl, ovs_idl, routing_tables=tables)
    assert tables == {"br-ex": 200}, f"the driver's tables are {tables}"


def withdraw_without_neighbour():
    """an address and a subnet are withdrawn without a neighbour entry"""
    from oslo_config import cfg
    from ovn_bgp_agent import privileged
    from ovn_bgp_agent.drivers.openstack.utils import wire
    from ovn_bgp_agent.privileged import linux_net as privileged_net
    from ovn_bgp_agent.utils import linux_net
    from pyroute2.netlink.exceptions import NetlinkError

    cfg.CONF.set_override("exposing_method", "underlay")
    ipr = mock.MagicMock()
    ipr.__enter__.return_value = ipr
    ipr.neigh.side_effect = NetlinkError(errno.ENOENT)
    deleted = []
    with (
        mock.patch.object(privileged.default, "client_mode", False),
        mock.patch.object(privileged_net.iproute, "IPRoute", return_value=ipr),
        mock.patch.object(privileged_net, "_get_link_id", side_effect=lambda ifname: len(ifname)) as index,
        mock.patch.object(linux_net, "get_interface_index", return_value=7),
        mock.patch.object(privileged_net, "route_delete", side_effect=lambda r: deleted.append(r["dst"])),
    ):
        wire.unwire_provider_port({}, ["172.24.4.10"], "br-ex", 42, {"br-ex": 200}, [])
        assert deleted == ["172.24.4.10"], "the route of the address stays"
        assert mock.call("br-ex.42") in index.mock_calls, "the bridge is looked up, not the VLAN device"
        wire.unwire_lrp_port({}, "10.0.0.0/24", "br-ex", None, {"br-ex": 200}, ["172.24.4.20"])
        assert deleted[1:] == ["10.0.0.0"], "the subnet's route stays"


def extra_routes():
    """every extra route is found, although routes disappear meanwhile"""
    from ovn_bgp_agent.utils import linux_net

    default, default6 = Route(None, 0, oif=5), Route(None, 0, oif=5, family=10)
    routes = [default, default6, Route("10.0.0.0", 24, oif=5, gateway="172.24.4.1"), Route("10.0.0.0", 24, oif=6)]
    dumps = []

    def get_routes(**match):
        dumps.append(match)
        return [r for r in routes if match.get("dst") in (None, r.get_attr("RTA_DST"))] if len(dumps) < 10 else []

    ipr = mock.MagicMock()
    ipr.__enter__.return_value = ipr
    ipr.get_routes = get_routes
    with (
        mock.patch.object(linux_net.pyroute2, "IPRoute", return_value=ipr),
        mock.patch.object(linux_net, "get_interface_index", return_value=5),
        mock.patch.object(linux_net.ovn_bgp_agent.privileged.linux_net, "route_create") as create,
    ):
        found = linux_net.get_extra_routing_table_for_bridge({"br-ex": 200}, "br-ex")
        assert found == routes[2:], f"{len(found)} of 2 extra routes found"
        assert len(dumps) == 1, f"{len(dumps)} dumps for {len(routes)} routes"
        assert linux_net._ensure_routing_table_routes({"br-ex": 200}, "br-ex") == routes[2:]
        assert not create.called, "a default route that exists is created"
        del routes[1]
        linux_net._ensure_routing_table_routes({"br-ex": 200}, "br-ex")
        assert [call.args[0].get("family") for call in create.mock_calls] == [10], "the IPv6 default route is missing"


def bfd_table():
    """the connection to the local OVN cluster has the tables of a BFD session"""
    from ovn_bgp_agent.drivers.openstack import nb_ovn_bgp_driver as driver
    from ovsdbapp.schema.ovn_northbound import commands

    api = mock.Mock()
    api.tables = {name: mock.Mock(rows={}, columns={}) for name in driver.LOCAL_CLUSTER_OVN_TABLES}
    for table in api.tables.values():
        table.rows = mock.MagicMock(indexes={})
        table.rows.values.return_value = []
    api._tables = api.tables
    transaction = mock.Mock()
    commands.BFDAddCommand(api, "bgp-router-public", "100.64.0.1", may_exist=True).run_idl(transaction)
    transaction.insert.assert_called_once_with(api.tables["BFD"])


def ipv6_ingress_flow():
    """the ingress flow of an IPv6 prefix matches the IPv6 destination"""
    from ovn_bgp_agent.drivers.openstack.utils import wire

    with mock.patch.object(wire, "ovs") as ovs, mock.patch.object(wire, "CONF") as conf:
        conf.local_ovn_cluster.external_nics = ["eth1"]
        ovs.get_ovs_patch_ports_info.return_value = ["2"]
        ovs.get_ovs_ports_info.return_value = ["eth1"]
        wire._ensure_ingress_flows("br-1", "02:00:00:00:00:01", "public", ["172.24.4.0/24", "2001:db8::/64"])
        ipv4, ipv6 = (call.args[1] for call in ovs.ensure_flow.mock_calls)
    assert ",ip,nw_dst=172.24.4.0/24," in ipv4, ipv4
    assert ",ipv6,ipv6_dst=2001:db8::/64," in ipv6, ipv6


def provider_network_cache():
    """an event before the bridge mappings are known does not hide the provider network"""
    driver = nb_driver()
    localnet = Row(name="provnet", options={"network_name": "public"}, tag=[])
    driver.nb_idl.ls_get_localnet_ports().execute.return_value = [localnet]
    assert not driver.is_ls_provider(PUBLIC)
    driver.ovn_bridge_mappings = {"public": "br-ex"}
    assert driver.is_ls_provider(PUBLIC), "the network has no bridge for the whole sync"

    class Emptied(dict):
        """The cache as the event's thread sees it if a sync empties it between two accesses."""

        def __contains__(self, key):
            return True

    driver.ovn_provider_ls = Emptied()
    assert driver.is_ls_provider(PUBLIC)


def router_name_prefix():
    """a tenant network is announced with either form of the router name in neutron"""
    from oslo_config import cfg
    from ovn_bgp_agent.drivers.openstack.utils import port as port_utils

    cfg.CONF.set_override("expose_tenant_networks", True)
    for name in (ROUTER, f"neutron-{ROUTER}"):
        gateway = Row(
            name="lrp-gateway",
            mac="fa:16:3e:00:00:01",
            networks=["172.24.4.10/24"],
            external_ids={"neutron:network_name": PUBLIC, "neutron:router_name": name},
        )
        assert port_utils.make_lrp_dict(gateway)["router"] == ROUTER, "an event finds another router"

        driver = nb_driver()
        driver.is_ls_provider = lambda switch: True
        driver.ovn_provider_ls[PUBLIC] = {"localnet": "provnet", "bridge_device": "br-ex", "bridge_vlan": None}
        driver._expose_provider_port = lambda *args: True
        driver._expose_lbs = mock.Mock()
        driver._expose_subnet = mock.Mock()
        attached = Row(external_ids={"neutron:device_id": ROUTER, "neutron:cidrs": "10.0.0.1/24"})
        driver.nb_idl.get_active_local_lrps = lambda routers, attached=attached: [attached] if ROUTER in routers else []
        driver._ensure_crlrp_exposed(gateway)

        assert list(driver.ovn_local_cr_lrps) == [ROUTER], driver.ovn_local_cr_lrps
        assert driver._expose_subnet.call_count == 1, "the tenant network is not announced"


def delete_exposed_set():
    """a set of addresses is deleted through the protocol of the privileged daemon"""
    import msgpack
    from ovn_bgp_agent.utils import linux_net

    sent = []
    with mock.patch.object(linux_net.ovn_bgp_agent.privileged, "linux_net") as privileged:
        privileged.delete_exposed_ips = lambda *arguments: sent.append(msgpack.packb(arguments))
        linux_net.delete_exposed_ips({"172.24.4.10"}, "bgp-nic")
    assert msgpack.unpackb(sent[0]) == [["172.24.4.10"], "bgp-nic"]


PROBES = {
    "0001": routing_tables,
    "0002": withdraw_without_neighbour,
    "0003": extra_routes,
    "0004": bfd_table,
    "0005": ipv6_ingress_flow,
    "0006": provider_network_cache,
    "0011": router_name_prefix,
    "0013": delete_exposed_set,
}
