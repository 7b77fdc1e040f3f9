"""Probes of the cost of a sync: it must not grow with the square of the number of addresses."""

from unittest import mock

from stubs import Route, Row

COUNT = 200


def routes_without_dumps():
    """adding and cleaning up routes dumps nothing per address"""
    from ovn_bgp_agent.utils import linux_net

    routes = {}
    ipr = mock.MagicMock()
    ipr.__enter__.return_value = ipr
    ipr.route.return_value = ()
    reads = []

    class CountedRoute(Route):
        def get_attr(self, name):
            reads.append(name)
            return super().get_attr(name)

    existing = [CountedRoute(address(i), 32, oif=7) for i in range(COUNT + 1)]
    with (
        mock.patch.object(linux_net.pyroute2, "IPRoute", return_value=ipr),
        mock.patch.object(linux_net, "get_interface_index", return_value=7) as index,
        mock.patch.object(linux_net.ovn_bgp_agent.privileged, "linux_net") as privileged,
    ):
        for i in range(COUNT):
            linux_net.add_ip_route(routes, address(i), 200, "br-ex")
        assert privileged.route_create.call_count == COUNT, "routes are missing"
        assert ipr.route.call_count == 0, f"{ipr.route.call_count} dumps for {COUNT} addresses"

        index.reset_mock()
        linux_net.delete_bridge_ip_routes({"br-ex": 200}, routes, {"br-ex": existing})
        assert [call.args[0]["dst"] for call in privileged.route_delete.mock_calls] == [address(COUNT)]
        assert len(reads) < 10 * COUNT, f"{len(reads)} attributes read for {COUNT} routes"
        assert index.call_count == 1, f"{index.call_count} interface lookups for one bridge"


def expected_routes():
    """the clean-up keeps the routes of subnets, VLANs and gateways, and deletes the others"""
    from ovn_bgp_agent.utils import linux_net

    def expected(dst, length, vlan=None, **more):
        return {"vlan": vlan, "route": {"dst": dst, "dst_len": length, **more}}

    routes = {
        "br-ex": [
            expected("10.0.0.0", 24, gateway="172.24.4.1"),
            expected("172.24.4.1", 32),
            expected("172.24.5.1", 32, vlan=42),
        ]
    }
    kept = [
        Route("10.0.0.0", 24, oif=7, gateway="172.24.4.1"),
        Route("172.24.4.1", 32, oif=7),
        Route("172.24.5.1", 32, oif=42),
    ]
    stale = [
        Route("10.0.0.0", 24, oif=7, gateway="172.24.4.9"),
        Route("10.0.0.0", 25, oif=7, gateway="172.24.4.1"),
        Route("172.24.5.1", 32, oif=7),
        Route("172.24.4.2", 32, oif=7),
    ]
    with (
        mock.patch.object(linux_net, "get_interface_index", side_effect={"br-ex": 7, "br-ex.42": 42}.get),
        mock.patch.object(linux_net.ovn_bgp_agent.privileged, "linux_net") as privileged,
    ):
        linux_net.delete_bridge_ip_routes({"br-ex": 200}, routes, {"br-ex": kept + stale})
    deleted = [call.args[0] for call in privileged.route_delete.mock_calls]
    assert [(r["dst"], r["dst_len"], r.get("gateway"), r["oif"]) for r in deleted] == [
        (r.get_attr("RTA_DST"), r["dst_len"], r.get_attr("RTA_GATEWAY"), r.get_attr("RTA_OIF")) for r in stale
    ], deleted


def routes():
    """adding and cleaning up routes dumps nothing per address and deletes stale routes"""
    expected_routes()
    routes_without_dumps()


def patch_port():
    """the number of a patch port comes from the database connection, with ovs-vsctl as the fallback"""
    from ovn_bgp_agent.drivers.openstack.utils import ovs

    columns = {"patch-provnet-to-br-int": 5, "patch-new-to-br-int": [], "patch-failed-to-br-int": -1}
    connection = mock.Mock()
    connection.db_get = lambda table, name, column: mock.Mock(
        execute=lambda **kwargs: columns.get(name) if (table, column) == ("Interface", "ofport") else None
    )
    with (
        mock.patch.object(ovs, "idlutils"),
        mock.patch.object(ovs, "idl"),
        mock.patch.object(ovs, "connection"),
        mock.patch.object(ovs.idl_ovs, "OvsdbIdl", return_value=connection),
        mock.patch.object(ovs.ovn_bgp_agent.privileged.ovs_vsctl, "ovs_vsctl", return_value=["9\n"]) as ovs_vsctl,
    ):
        ovs.OvsIdl().start("unix:/run/openvswitch/db.sock")
        assert ovs.get_ovs_patch_port_ofport("provnet") == "5" and not ovs_vsctl.called, "ovs-vsctl runs"
        columns["patch-provnet-to-br-int"] = 6
        assert ovs.get_ovs_patch_port_ofport("provnet") == "6", "an earlier number is remembered"
        for name in ("new", "failed", "missing"):
            assert ovs.get_ovs_patch_port_ofport(name) == "9", f"no fallback for the {name} port"
        assert ovs_vsctl.call_count == 3


def nat_by_port():
    """the NAT entries are scanned once, and again after a change of the database"""
    from ovn_bgp_agent.drivers.openstack.utils import ovn

    reads = []

    class Nat(Row):
        _table = mock.MagicMock()

        @property
        def logical_port(self):
            reads.append(self)
            return self.port

        def __getattr__(self, name):
            raise AttributeError(name)

    rows = {i: Nat(uuid=i, port=[f"port{i}"], external_ip=address(i)) for i in range(COUNT)}
    rows[COUNT] = Nat(uuid=COUNT, port=[], external_ip=address(COUNT))
    nb = ovn.OvsdbNbOvnIdl.__new__(ovn.OvsdbNbOvnIdl)
    table = mock.MagicMock(columns={"logical_port": mock.Mock()})
    table.rows = mock.MagicMock(indexes={})
    table.rows.values = rows.values
    idl = mock.Mock(change_seqno=1, tables={"NAT": table})
    connection = mock.MagicMock(idl=idl)
    with mock.patch.object(ovn.OvsdbNbOvnIdl, "ovsdb_connection", connection):
        for i in range(COUNT):
            assert nb.get_nat_by_logical_port(f"port{i}").external_ip == address(i)
        assert len(reads) < 10 * COUNT, f"{len(reads)} entries read for {COUNT} ports"
        assert not nb.get_nat_by_logical_port("unknown")

        rows[0].port = ["moved"]
        idl.change_seqno = 2
        assert nb.get_nat_by_logical_port("moved").external_ip == address(0), "a change is not seen"
        assert not nb.get_nat_by_logical_port("port0"), "a change is not seen"


def interface_index():
    """an interface's index is looked up without a netlink socket"""
    from ovn_bgp_agent import exceptions
    from ovn_bgp_agent.privileged import linux_net as privileged_net
    from ovn_bgp_agent.utils import linux_net

    ipr = mock.MagicMock()
    ipr.__enter__.return_value = ipr
    ipr.link_lookup.side_effect = lambda ifname: [1] if ifname == "lo" else []
    with (
        mock.patch.object(linux_net.pyroute2, "IPRoute", return_value=ipr) as opened,
        mock.patch.object(privileged_net.iproute, "IPRoute", return_value=ipr) as opened_privileged,
    ):
        assert linux_net.get_interface_index("lo") == 1 and privileged_net._get_link_id("lo") == 1
        assert not opened.called and not opened_privileged.called, "a netlink socket is opened"
        for lookup in (linux_net.get_interface_index, privileged_net._get_link_id):
            try:
                lookup("no-such-device")
            except exceptions.NetworkInterfaceNotFound:
                continue
            raise AssertionError(f"{lookup.__name__} finds a device that does not exist")


def address(i):
    return f"172.24.{i // 256}.{i % 256}"


PROBES = {"0007": routes, "0008": patch_port, "0009": nat_by_port, "0010": interface_index}
