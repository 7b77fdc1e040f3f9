"""Rows of the northbound database as neutron's OVN driver writes them (2025.2 and later), made in one transaction each.

Networks are named by the lab; neutron names them by UUID. External IDs carry what the agent reads.
"""

from .ovsdb import add_to, insert, remove_from, table_map


class Neutron:
    def __init__(self, central):
        self.nb = central.nb
        self.routers, self.networks = {}, {}

    def network(self, name, physical=None, vlan=None, vni=None):
        """A network; with `physical` a provider network. `vni` as networking-bgpvpn annotates it."""
        switch = f"neutron-{name}"
        annotations = {"neutron_bgpvpn:vni": str(vni), "neutron_bgpvpn:type": "l3"} if vni else {}
        operations, ports = [], []
        if physical:
            localnet, reference = insert("Logical_Switch_Port", name=f"provnet-{name}", type="localnet", addresses="unknown",
                                         options=table_map({"network_name": physical}), **({"tag": vlan} if vlan else {}))
            operations.append(localnet)
            ports.append(reference)
        row, _ = insert("Logical_Switch", name=switch, ports=["set", ports], external_ids=table_map({"neutron:network_name": name, **annotations}))
        self.nb.transact([*operations, row])
        self.networks[name] = switch

    def remove_network(self, name):
        row = self.nb.rows("Logical_Switch", [], name=self.networks[name])[0]
        self.nb.transact([{"op": "delete", "table": "Logical_Switch", "where": [["_uuid", "==", row["_uuid"]]]}])

    def router(self, name):
        row, _ = insert("Logical_Router", name=f"neutron-{name}", external_ids=table_map({"neutron:router_name": name, "neutron:gw_port_id": f"gw-{name}"}),
                        options=table_map({"always_learn_from_arp_request": "false", "dynamic_neigh_routers": "true"}))
        self.nb.transact([row])

    def gateway(self, router, network, mac, cidrs, chassis, next_hops):
        """The router's port on a provider network, on the first of the chassis (name, priority) that lives."""
        name = f"lrp-gw-{router}"
        operations, gateways = [], []
        for chassis_name, priority in chassis:
            operation, reference = insert("Gateway_Chassis", name=f"{name}_{chassis_name}", chassis_name=chassis_name, priority=priority)
            operations.append(operation)
            gateways.append(reference)
        port, port_reference = insert("Logical_Router_Port", name=name, mac=mac, networks=["set", cidrs], gateway_chassis=["set", gateways],
                                      external_ids=table_map({"neutron:network_name": f"neutron-{network}", "neutron:router_name": f"neutron-{router}",
                                                              "neutron:revision_number": "1"}))
        routes, references = [], []
        for hop in next_hops:
            operation, reference = insert("Logical_Router_Static_Route", ip_prefix="::/0" if ":" in hop else "0.0.0.0/0", nexthop=hop)
            routes.append(operation)
            references.append(reference)
        switch_port, switch_reference = self._router_port(f"gw-{router}", network, name, "network:router_gateway", router, cidrs)
        self.nb.transact([*operations, port, *routes, switch_port,
                          add_to("Logical_Router", "ports", [port_reference], name=f"neutron-{router}"),
                          add_to("Logical_Router", "static_routes", references, name=f"neutron-{router}"),
                          add_to("Logical_Switch", "ports", [switch_reference], name=f"neutron-{network}")])

    def move_gateway(self, router, chassis):
        """Raises the priority of a chassis above the others'."""
        for row in self.nb.rows("Gateway_Chassis", ["chassis_name", "name"]):
            if row["name"].startswith(f"lrp-gw-{router}_"):
                self.nb.update("Gateway_Chassis", {"priority": 20 if row["chassis_name"] == chassis else 10}, name=row["name"])

    def attach(self, router, network, mac, cidrs):
        """The router's port on a tenant network."""
        name = f"lrp-{router}-{network}"
        port, reference = insert("Logical_Router_Port", name=name, mac=mac, networks=["set", cidrs],
                                 external_ids=table_map({"neutron:network_name": f"neutron-{network}", "neutron:router_name": f"neutron-{router}"}))
        switch_port, switch_reference = self._router_port(f"{router}-{network}", network, name, "network:router_interface", router, cidrs)
        self.nb.transact([port, switch_port, add_to("Logical_Router", "ports", [reference], name=f"neutron-{router}"),
                          add_to("Logical_Switch", "ports", [switch_reference], name=f"neutron-{network}")])

    @staticmethod
    def _router_port(name, network, peer, owner, router, cidrs):
        options = {"router-port": peer, **({"nat-addresses": "router", "exclude-lb-vips-from-garp": "true"} if owner == "network:router_gateway" else {})}
        return insert("Logical_Switch_Port", name=name, type="router", addresses="router", options=table_map(options),
                      external_ids=table_map({"neutron:cidrs": " ".join(cidrs), "neutron:device_owner": owner, "neutron:device_id": router,
                                              "neutron:network_name": f"neutron-{network}", "neutron:port_name": ""}))

    def port(self, name, network, mac, cidrs, host):
        """A server's port, on that host once its interface is there."""
        operation, reference = self.port_row(name, network, mac, cidrs, host)
        self.nb.transact([operation, add_to("Logical_Switch", "ports", [reference], name=f"neutron-{network}")])

    @staticmethod
    def port_row(name, network, mac, cidrs, host):
        addresses = [cidr.split("/")[0] for cidr in cidrs]
        return insert("Logical_Switch_Port", name=name, addresses=f"{mac} {' '.join(addresses)}", options=table_map({"requested-chassis": host}),
                      external_ids=table_map({"neutron:cidrs": " ".join(cidrs), "neutron:device_owner": "compute:nova", "neutron:device_id": f"vm-{name}",
                                              "neutron:network_name": f"neutron-{network}", "neutron:host_id": host, "neutron:port_name": name}))

    def remove_port(self, name, network):
        row = self.nb.rows("Logical_Switch_Port", [], name=name)[0]
        self.nb.transact([remove_from("Logical_Switch", "ports", [row["_uuid"]], name=f"neutron-{network}")])

    def is_up(self, port):
        rows = self.nb.rows("Logical_Switch_Port", ["up"], name=port)
        return bool(rows) and rows[0]["up"] is True

    def distributed(self, value):
        """`enable_distributed_floating_ip` of neutron's ml2 configuration, where the agent finds it."""
        self.nb.transact([{"op": "mutate", "table": "NB_Global", "where": [],
                           "mutations": [["external_ids", "delete", ["set", ["neutron:fip-distributed"]]],
                                         ["external_ids", "insert", table_map({"neutron:fip-distributed": str(value)})]]}])

    def floating_ip(self, router, external_network, address, port, inside, mac):
        self.nb.transact(self.floating_ip_rows(router, external_network, address, port, inside, mac))

    @staticmethod
    def floating_ip_rows(router, external_network, address, port, inside, mac):
        """A distributed floating IP: the NAT has the port and its own MAC, the port names the address."""
        nat, reference = insert("NAT", type="dnat_and_snat", external_ip=address, logical_ip=inside, logical_port=port, external_mac=mac,
                                gateway_port=["set", []],
                                external_ids=table_map({"neutron:fip_id": f"fip-{address}", "neutron:fip_port_id": port, "neutron:fip_external_mac": mac,
                                                        "neutron:fip_network_id": external_network, "neutron:router_name": f"neutron-{router}",
                                                        "neutron:revision_number": "2"}))
        return [nat, add_to("Logical_Router", "nat", [reference], name=f"neutron-{router}"),
                {"op": "mutate", "table": "Logical_Switch_Port", "where": [["name", "==", port]],
                 "mutations": [["external_ids", "insert", table_map({"neutron:port_fip": address})]]}]

    def remove_floating_ips(self, router, addresses):
        wanted = set(addresses)
        operations = []
        for row in self.nb.rows("NAT", ["external_ip", "logical_port"]):
            if row["external_ip"] in wanted:
                operations += [remove_from("Logical_Router", "nat", [row["_uuid"]], name=f"neutron-{router}"),
                               {"op": "mutate", "table": "Logical_Switch_Port", "where": [["name", "==", row["logical_port"]]],
                                "mutations": [["external_ids", "delete", ["set", ["neutron:port_fip"]]]]}]
        self.nb.transact(operations)

    def rehost(self, port, host):
        """A live migration's end: the port is another host's."""
        self.nb.transact([{"op": "mutate", "table": "Logical_Switch_Port", "where": [["name", "==", port]],
                           "mutations": [["external_ids", "delete", ["set", ["neutron:host_id"]]], ["external_ids", "insert", table_map({"neutron:host_id": host})],
                                         ["options", "delete", ["set", ["requested-chassis"]]], ["options", "insert", table_map({"requested-chassis": host})]]}])
