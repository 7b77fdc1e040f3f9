//! The agent's three privileged contexts, and what each of them may do as root.

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

    /// As Python imports it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "ovn_bgp_agent.privileged.default",
            Self::OvsVsctlCmd => "ovn_bgp_agent.privileged.ovs_vsctl_cmd",
            Self::VtyshCmd => "ovn_bgp_agent.privileged.vtysh_cmd",
        }
    }

    /// What the helper and what it runs may have: the context's own capabilities, which the helper sets for itself and dies without,
    /// and DAC_OVERRIDE. That one is for connecting to sockets of other users: the agent's at first, then OVS's or FRR's.
    pub fn capabilities(self) -> CapabilitySet {
        let own = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN;
        match self {
            Self::Default => own | CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH,
            Self::OvsVsctlCmd | Self::VtyshCmd => own | CapabilitySet::DAC_OVERRIDE,
        }
    }

    /// Whether what the helper runs does with the capabilities that the helper keeps. With no_new_privs they are all it can have, and
    /// the helpers for `ovs-vsctl` and `vtysh` give up DAC_OVERRIDE, which those programs get back as root's when they are
    /// executed.
    pub fn no_new_privileges(self) -> bool {
        self == Self::Default
    }
}
