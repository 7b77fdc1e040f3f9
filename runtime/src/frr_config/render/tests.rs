use super::super::RouteReflector;
use super::super::options::ZEBRA_KEEP;
use super::*;
use crate::asn::Asn;

fn asn(number: u32) -> Asn {
    Asn::new(number).unwrap()
}

fn sessions(leaves: &[(&str, u32)]) -> Sessions {
    // A number that is 0 stands for `external`.
    let leaf = |(name, number): &(&str, u32)| Leaf {
        peer: match name.parse::<IpAddr>() {
            Ok(address) => address.into(),
            Err(_) => PeerName::Interface(name.to_string()),
        },
        asn: match number {
            0 => PeerAs::External,
            number => PeerAs::Number(asn(*number)),
        },
    };
    Sessions {
        asn: asn(4_200_049_263),
        router_id: [10, 0, 192, 111].into(),
        leaves: leaves.iter().map(leaf).collect(),
    }
}

fn frr_conf(leaves: &[(&str, u32)], extras: &Extras) -> String {
    let [_, _, (name, content)] = render(&sessions(leaves), extras).unwrap();
    assert_eq!(name, "frr.conf");
    content
}

const LEAF: &[(&str, u32)] = &[("10.0.192.1", 65001)];

fn filtered() -> Extras {
    Extras {
        outbound_filter: true,
        leak: None,
        zebra_keep: Some(ZEBRA_KEEP),
        graceful_restart: Some(GracefulRestart::default()),
        ..Extras::default()
    }
}

#[test]
fn one_leaf() {
    let expected = "\
! Written by obgp-runtime at each start of the pod; changes are lost.
frr defaults traditional
!
router bgp 4200049263
 bgp router-id 10.0.192.111
 bgp log-neighbor-changes
 bgp graceful-restart
 ! The kernel keeps the routes of the virtual machines while bgpd restarts, so the leaf switch may keep its routes too.
 bgp graceful-restart preserve-fw-state
 ! Send updates at once: after a restart, any delay interrupts traffic.
 coalesce-time 0
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 neighbor 10.0.192.1 remote-as 65001
 neighbor 10.0.192.1 description Leaf-Switch
 neighbor 10.0.192.1 timers 3 10
 neighbor 10.0.192.1 timers connect 3
 !
 address-family ipv4 unicast
  neighbor 10.0.192.1 activate
  neighbor 10.0.192.1 soft-reconfiguration inbound
  neighbor 10.0.192.1 prefix-list HOSTS-V4 out
 exit-address-family
exit
!
! Announce single addresses only, never a subnet or the default route.
ip prefix-list HOSTS-V4 seq 10 permit 0.0.0.0/0 ge 32
!
end
";
    assert_eq!(frr_conf(LEAF, &filtered()), expected);
}

/// frr.conf with every option.
const EVERYTHING: &str = "\
! Written by obgp-runtime at each start of the pod; changes are lost.
frr defaults traditional
!
! The route reflector may be reachable through the default route only.
ip nht resolve-via-default
!
bfd
 profile leaf-switch
  detect-multiplier 5
  receive-interval 150
  transmit-interval 200
 exit
exit
!
router bgp 4200049263
 bgp router-id 10.0.192.111
 bgp log-neighbor-changes
 bgp graceful-restart restart-time 60
 bgp graceful-restart stalepath-time 90
 bgp graceful-restart
 ! The kernel keeps the routes of the virtual machines while bgpd restarts, so the leaf switch may keep its routes too.
 bgp graceful-restart preserve-fw-state
 ! Send updates at once: after a restart, any delay interrupts traffic.
 coalesce-time 0
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp bestpath as-path multipath-relax
 neighbor 10.0.192.1 remote-as 65001
 neighbor 10.0.192.1 description Leaf-Switch
 neighbor 10.0.192.1 password s3cret{{x}}
 neighbor 10.0.192.1 timers 3 10
 neighbor 10.0.192.1 timers connect 10
 neighbor 10.0.192.1 bfd profile leaf-switch
 neighbor fd00::1 remote-as 65002
 neighbor fd00::1 description Leaf-Switch
 neighbor fd00::1 password s3cret{{x}}
 neighbor fd00::1 timers 3 10
 neighbor fd00::1 timers connect 10
 neighbor fd00::1 bfd profile leaf-switch
 neighbor 10.255.0.1 remote-as 65100
 neighbor 10.255.0.1 description EVPN-Route-Reflector
 neighbor 10.255.0.1 ebgp-multihop
 neighbor 10.255.0.1 update-source 10.0.192.111
 neighbor 10.255.0.1 timers 3 10
 neighbor 10.255.0.1 timers connect 10
 !
 address-family ipv4 unicast
  neighbor 10.0.192.1 activate
  neighbor 10.0.192.1 soft-reconfiguration inbound
  neighbor 10.0.192.1 prefix-list HOSTS-V4 out
  import vrf bgp-vrf
 exit-address-family
 !
 address-family ipv6 unicast
  neighbor 10.0.192.1 activate
  neighbor 10.0.192.1 soft-reconfiguration inbound
  neighbor 10.0.192.1 prefix-list HOSTS-V6 out
  neighbor fd00::1 activate
  neighbor fd00::1 soft-reconfiguration inbound
  neighbor fd00::1 prefix-list HOSTS-V6 out
  maximum-paths 2
  import vrf bgp-vrf
 exit-address-family
 !
 address-family l2vpn evpn
  neighbor 10.255.0.1 activate
  advertise-all-vni
 exit-address-family
exit
!
! The agent's own configuration: after a restart of bgpd the leak exists before the agent's next frr_sync.
router bgp 4200049263 vrf bgp-vrf
 bgp router-id 10.0.192.111
 !
 address-family ipv4 unicast
  redistribute connected
  redistribute kernel
 exit-address-family
 !
 address-family ipv6 unicast
  redistribute connected
  redistribute kernel
 exit-address-family
exit
!
! Announce single addresses only, never a subnet or the default route.
ip prefix-list HOSTS-V4 seq 10 permit 0.0.0.0/0 ge 32
ipv6 prefix-list HOSTS-V6 seq 10 permit ::/0 ge 128
!
! Lines of --extra-config.
log syslog informational
end
";

#[test]
fn everything_at_once() {
    let extras = Extras {
        reflector: Some(RouteReflector {
            address: [10, 255, 0, 1].into(),
            asn: asn(65100),
        }),
        ipv6: true,
        listen: true,
        zebra_keep: Some(ZEBRA_KEEP),
        bfd: Some(Bfd {
            multiplier: 5,
            receive: 150,
            transmit: 200,
        }),
        graceful_restart: Some(GracefulRestart { restart: 60, stale: 90 }),
        outbound_filter: true,
        leak: Some(Leak {
            vrf: "bgp-vrf".into(),
            redistribute: &["connected", "kernel"],
        }),
        password: Some("s3cret{{x}}".into()),
        extra: Some("log syslog informational".into()),
    };
    let leaves = [("10.0.192.1", 65001), ("fd00::1", 65002)];
    assert_eq!(frr_conf(&leaves, &extras), EVERYTHING);
}

/// The agent leaks in both families, whichever the leaf switch carries.
#[test]
fn a_leak_is_in_both_families() {
    let leak = Leak {
        vrf: "red".into(),
        redistribute: &["connected"],
    };
    let text = frr_conf(
        LEAF,
        &Extras {
            leak: Some(leak),
            ..filtered()
        },
    );
    assert!(
        text.contains(" address-family ipv6 unicast\n  import vrf red\n exit-address-family\nexit\n"),
        "{text}"
    );
    assert_eq!(text.matches("  import vrf red\n").count(), 2);
    assert!(!text.contains("HOSTS-V6"), "{text}");
}

#[test]
fn traffic_is_shared_among_several_leaves() {
    let text = frr_conf(&[("10.0.192.1", 65001), ("10.0.192.2", 65001)], &filtered());
    assert!(
        text.contains("  maximum-paths 2\n") && !text.contains("multipath-relax"),
        "{text}"
    );
}

#[test]
fn the_filter_can_be_disabled() {
    assert!(!frr_conf(LEAF, &Extras::default()).contains("prefix-list"));
}

fn daemons(extras: &Extras) -> String {
    let [(name, content), _, _] = render(&sessions(LEAF), extras).unwrap();
    assert_eq!(name, "daemons");
    content
}

#[test]
fn bfd_enables_its_daemon() {
    for (bfd, line) in [(Some(Bfd::default()), "bfdd=yes\n"), (None, "bfdd=no\n")] {
        let extras = Extras { bfd, ..filtered() };
        assert!(daemons(&extras).contains(line));
        assert_eq!(
            frr_conf(LEAF, &extras).contains(" neighbor 10.0.192.1 bfd\n"),
            bfd.is_some()
        );
    }
}

#[test]
fn the_daemons_have_their_options() {
    let usual = daemons(&filtered());
    assert!(usual.contains("\nbgpd_options=\"-A 127.0.0.1 -P 0 -p 0\"\n"), "{usual}");
    assert!(
        usual.contains("\nzebra_options=\"-A 127.0.0.1 -P 0 -s 90000000 -r -K 120\"\n"),
        "{usual}"
    );
    let other = daemons(&Extras {
        listen: true,
        zebra_keep: None,
        ..filtered()
    });
    assert!(other.contains("\nbgpd_options=\"-A 127.0.0.1 -P 0\"\n"), "{other}");
    assert!(
        other.contains("\nzebra_options=\"-A 127.0.0.1 -P 0 -s 90000000\"\n"),
        "{other}"
    );
    assert!(!other.contains("-K") && !other.contains("-p 0"), "{other}");
}

#[test]
fn graceful_restart_can_be_disabled() {
    let text = frr_conf(
        LEAF,
        &Extras {
            graceful_restart: None,
            ..filtered()
        },
    );
    assert!(text.contains("\n bgp graceful-restart-disable\n"), "{text}");
    assert!(
        !text.contains("preserve-fw-state") && !text.contains("bgp graceful-restart\n"),
        "{text}"
    );
}

#[test]
fn unnumbered_sessions_carry_ipv4_and_with_the_option_ipv6() {
    let leaves = [("eth0", 0), ("eth1", 0)];
    let text = frr_conf(&leaves, &filtered());
    let expected = " bgp bestpath as-path multipath-relax
 neighbor eth0 interface remote-as external
 neighbor eth0 description Leaf-Switch
 neighbor eth0 timers 3 10
 neighbor eth0 timers connect 3
 neighbor eth1 interface remote-as external
 neighbor eth1 description Leaf-Switch
 neighbor eth1 timers 3 10
 neighbor eth1 timers connect 3
 !
 address-family ipv4 unicast
  neighbor eth0 activate
  neighbor eth0 soft-reconfiguration inbound
  neighbor eth0 prefix-list HOSTS-V4 out
  neighbor eth1 activate
  neighbor eth1 soft-reconfiguration inbound
  neighbor eth1 prefix-list HOSTS-V4 out
  maximum-paths 2
 exit-address-family
exit
";
    assert!(text.contains(expected), "{text}");
    let both = frr_conf(
        &leaves,
        &Extras {
            ipv6: true,
            ..filtered()
        },
    );
    assert!(both.contains("  neighbor eth1 prefix-list HOSTS-V6 out\n"), "{both}");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let render = || render(&sessions(LEAF), &filtered()).unwrap();
    assert_eq!(render(), render());
}
