"""Stand-ins for OVSDB rows and for the connections of a driver."""

from unittest import mock


class Row:
    """An OVSDB row with the given columns."""

    def __init__(self, **columns):
        self.__dict__.update(columns)


def nb_driver():
    """The NB driver, not started, with stubs for its connections."""
    from ovn_bgp_agent.drivers.openstack import nb_ovn_bgp_driver

    driver = nb_ovn_bgp_driver.NBOVNBGPDriver()
    driver.nb_idl = mock.Mock()
    driver.local_nb_idl = mock.Mock()
    driver.chassis = "node-1"
    driver.chassis_id = "node-1-id"
    return driver


class Route(dict):
    """A route as pyroute2 returns it."""

    def __init__(self, dst, dst_len, oif, gateway=None, family=2):
        super().__init__(dst_len=dst_len, family=family)
        self.attributes = {"RTA_DST": dst, "RTA_OIF": oif, "RTA_GATEWAY": gateway}

    def get_attr(self, name):
        return self.attributes[name]
