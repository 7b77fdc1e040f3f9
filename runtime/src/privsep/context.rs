//! The agent's three privileged contexts and the capabilities of each.

use rustix::thread::CapabilitySet;

/// `ovn_bgp_agent/privileged/__init__.py` of ovn-bgp-agent 5.0.0 to 7.0.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// Netlink, sysctl, rt_tables.
    Default,
    OvsVsctlCmd,
    VtyshCmd,
}

impl Context {
    pub const ALL: [Self; 3] = [Self::Default, Self::OvsVsctlCmd, Self::VtyshCmd];

    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|context| context.name() == name)
    }

    /// The name of the Python object.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "ovn_bgp_agent.privileged.default",
            Self::OvsVsctlCmd => "ovn_bgp_agent.privileged.ovs_vsctl_cmd",
            Self::VtyshCmd => "ovn_bgp_agent.privileged.vtysh_cmd",
        }
    }

    /// The capabilities of the helper and its children: those of the context, which the helper sets itself and cannot run without,
    /// and DAC_OVERRIDE, to connect to other users' sockets: first the agent's, then those of OVS or FRR.
    pub fn capabilities(self) -> CapabilitySet {
        let own = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN;
        match self {
            Self::Default => own | CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH,
            Self::OvsVsctlCmd | Self::VtyshCmd => own | CapabilitySet::DAC_OVERRIDE,
        }
    }

    /// Whether the helper's children need no more capabilities than the helper keeps, so that no_new_privs can be set. The helpers for
    /// `ovs-vsctl` and `vtysh` drop DAC_OVERRIDE, and those programs get it back because root executes them.
    pub fn no_new_privileges(self) -> bool {
        self == Self::Default
    }
}
