"""Stand-ins for OVSDB rows and for the connections of a driver."""

from unittest import mock


class Row:
    """An OVSDB row: the columns given."""

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
