//! Addresses -> which of them answer, asked all at once, with whatever the process may do.
//!
//! | way | takes | lacks |
//! |---|---|---|
//! | a UDP datagram: the kernel resolves the address (ARP, ND) to send it, and netlink tells the result; a closed port answers by itself | nothing | a neighbour the kernel already knows is not asked again at once |
//! | ICMP echo over an unprivileged datagram socket | a group in net.ipv4.ping_group_range | switches may not answer echoes |
//! | ICMP echo over a raw socket, where that is not allowed | CAP_NET_RAW | the same |
//! | having the kernel confirm a neighbour it knows | CAP_NET_ADMIN | – |
//!
//! So an address on the link is found without any capability, whatever it filters, unless it was known before; and what was known
//! before is the next level of the discovery. Raw ARP would add nothing that the kernel's own does not.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, socket_with};

use crate::network::{Neighbor, NeighborState, Netlink};
use crate::peer::{Patience, Reachable, Wire};

/// For the report only, an answer is not waited for longer: frr-init is to be done in 50 ms.
const REPORT: Duration = Duration::from_millis(30);
/// What got lost is sent again.
const AGAIN: Duration = Duration::from_millis(250);
const SHORTEST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);
/// "Discard": nobody listens, or nobody cares.
const PORT: u16 = 9;

pub struct Prober {
    netlink: Netlink,
    index: u32,
    source: IpAddr,
    /// How long to wait where the answer decides.
    decision: Duration,
    /// What could not be done, and did not bring an answer: for the person.
    pub notes: Vec<String>,
}

impl Prober {
    pub fn new(netlink: Netlink, index: u32, source: IpAddr, decision: Duration) -> Self {
        Self {
            netlink,
            index,
            source,
            decision,
            notes: Vec::new(),
        }
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn state(&mut self, address: IpAddr) -> NeighborState {
        let known = self.netlink.neighbors(self.index).unwrap_or_default();
        let found = known.iter().find(|neighbor| neighbor.address == address);
        found.map_or(NeighborState::Unknown, |neighbor| neighbor.state)
    }
}

impl Wire for Prober {
    fn probe(&mut self, targets: &[IpAddr], patience: Patience) -> Vec<Reachable> {
        let wait = match patience {
            Patience::Decision => self.decision,
            Patience::Report => self.decision.min(REPORT),
        };
        let mut probes = Vec::new();
        for target in targets {
            // An IPv6 target is asked from whatever address the kernel takes.
            let source = Some(self.source).filter(|source| source.is_ipv4() == target.is_ipv4());
            let before = self.state(*target);
            if before == NeighborState::Stale {
                // Without the capability the others have to do.
                let _ = self.netlink.confirm(self.index, *target);
            }
            probes.push(Probe::new(*target, source, before));
        }
        let start = Instant::now();
        let mut sent = None;
        let mut pause = SHORTEST_PAUSE;
        loop {
            if sent.is_none_or(|sent: Instant| sent.elapsed() >= AGAIN) {
                probes.iter_mut().for_each(Probe::send);
                sent = Some(Instant::now());
            }
            std::thread::sleep(pause.min(wait.saturating_sub(start.elapsed())));
            pause = (pause * 2).min(LONGEST_PAUSE);
            let neighbors = self.netlink.neighbors(self.index).unwrap_or_default();
            probes.iter_mut().for_each(|probe| probe.listen(&neighbors));
            let decided =
                probes.first().is_none_or(|first| first.answered) || probes.iter().all(|probe| probe.answered);
            if decided || start.elapsed() >= wait {
                break;
            }
        }
        for probe in &probes {
            if probe.answered {
                continue;
            }
            for problem in &probe.problems {
                self.note(format!("probing {}: {problem}", probe.target));
            }
            if patience == Patience::Report {
                self.note(format!(
                    "{} did not answer within {} ms",
                    probe.target,
                    wait.as_millis()
                ));
            }
        }
        probes.iter().map(Probe::result).collect()
    }

    fn neighbors(&mut self) -> Vec<Neighbor> {
        match self.netlink.neighbors(self.index) {
            Ok(neighbors) => neighbors,
            Err(error) => {
                self.note(error.to_string());
                Vec::new()
            }
        }
    }
}

/// The probing of one address.
struct Probe {
    target: IpAddr,
    before: NeighborState,
    udp: Option<UdpSocket>,
    echo: Option<UdpSocket>,
    sequence: u16,
    /// Something left.
    sent: bool,
    answered: bool,
    problems: Vec<String>,
}

impl Probe {
    fn new(target: IpAddr, source: Option<IpAddr>, before: NeighborState) -> Self {
        let mut problems = Vec::new();
        let mut keep = |what: &str, socket: io::Result<UdpSocket>| match socket {
            Ok(socket) => Some(socket),
            Err(error) => {
                problems.push(format!("{what}: {error}"));
                None
            }
        };
        let udp = keep("no UDP", udp(target, source));
        let echo = keep(
            "no ICMP echo, for which CAP_NET_RAW or a group in net.ipv4.ping_group_range is needed",
            echo(target, source),
        );
        Self {
            target,
            before,
            udp,
            echo,
            sequence: 0,
            sent: false,
            answered: false,
            problems,
        }
    }

    fn send(&mut self) {
        self.sequence += 1;
        for (socket, bytes) in [
            (&self.udp, Vec::new()),
            (&self.echo, echo_request(self.target, self.sequence)),
        ] {
            let Some(socket) = socket else { continue };
            match socket.send(&bytes) {
                Ok(_) => self.sent = true,
                // The answer to the datagram before.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => self.answered = true,
                Err(error) => {
                    let problem = format!("cannot be sent: {error}");
                    if !self.problems.contains(&problem) {
                        self.problems.push(problem);
                    }
                }
            }
        }
    }

    fn listen(&mut self, neighbors: &[Neighbor]) {
        let mut buffer = [0; 1500];
        if let Some(socket) = &self.udp {
            match socket.recv(&mut buffer) {
                Ok(_) => self.answered = true,
                // "Port unreachable": the host is there.
                Err(error) => self.answered |= error.kind() == io::ErrorKind::ConnectionRefused,
            }
        }
        if let Some(socket) = &self.echo {
            // A raw socket also sees what else comes from there; whatever it is, it is a sign of life.
            self.answered |= socket.recv(&mut buffer).is_ok_and(|length| length > 0);
        }
        // Resolved because of this probe: what was there before was perhaps there long before.
        let now = neighbors.iter().find(|neighbor| neighbor.address == self.target);
        let resolved = now.is_some_and(|now| now.state == NeighborState::Reachable);
        self.answered |= resolved && self.before != NeighborState::Reachable;
    }

    fn result(&self) -> Reachable {
        match (self.answered, self.sent) {
            (true, _) => Reachable::Yes,
            (false, true) => Reachable::No,
            (false, false) => Reachable::Unknown,
        }
    }
}

fn udp(target: IpAddr, source: Option<IpAddr>) -> io::Result<UdpSocket> {
    let any = if target.is_ipv4() { "0.0.0.0" } else { "::" };
    let socket = match source {
        Some(source) => UdpSocket::bind((source, 0))?,
        None => UdpSocket::bind((any, 0))?,
    };
    socket.connect((target, PORT))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// An ICMP socket, with the interface of a UDP one: connected, it takes and gives ICMP messages.
fn echo(target: IpAddr, source: Option<IpAddr>) -> io::Result<UdpSocket> {
    let (family, protocol): (AddressFamily, Protocol) = match target {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let open = |kind| socket_with(family, kind, flags, Some(protocol));
    let socket = open(SocketType::DGRAM).or_else(|_| open(SocketType::RAW))?;
    if let Some(source) = source {
        rustix::net::bind(&socket, &SocketAddr::new(source, 0))?;
    }
    let socket = UdpSocket::from(socket);
    socket.connect((target, 0))?;
    Ok(socket)
}

/// An echo request (RFC 792, RFC 4443). The kernel writes the checksum of ICMPv6, and of datagram sockets.
fn echo_request(target: IpAddr, sequence: u16) -> Vec<u8> {
    let kind = if target.is_ipv4() { 8 } else { 128 };
    let mut message = vec![kind, 0, 0, 0];
    message.extend((std::process::id() as u16).to_be_bytes());
    message.extend(sequence.to_be_bytes());
    if target.is_ipv4() {
        let sum: u32 = message
            .chunks_exact(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_makes_the_sum_all_ones() {
        for sequence in [1, 2, 0xff00] {
            let message = echo_request([10, 0, 0, 1].into(), sequence);
            let sum: u32 = message
                .chunks_exact(2)
                .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
                .sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        }
    }

    /// The machine's own loopback: a closed port answers, without any capability.
    #[test]
    fn a_closed_port_is_a_sign_of_life() {
        let mut probe = Probe::new([127, 0, 0, 1].into(), None, NeighborState::Unknown);
        probe.echo = None;
        probe.send();
        std::thread::sleep(Duration::from_millis(50));
        probe.listen(&[]);
        assert_eq!(probe.result(), Reachable::Yes, "{:?}", probe.problems);
    }

    #[test]
    fn what_the_kernel_resolved_for_the_probe_is_an_answer_and_what_it_knew_is_not() {
        let target = IpAddr::from([192, 0, 2, 1]);
        let now = [Neighbor {
            address: target,
            state: NeighborState::Reachable,
        }];
        for (before, answered) in [
            (NeighborState::Unknown, true),
            (NeighborState::Stale, true),
            (NeighborState::Reachable, false),
        ] {
            let mut probe = Probe::new(target, None, before);
            (probe.udp, probe.echo) = (None, None);
            probe.listen(&now);
            assert_eq!(probe.answered, answered, "{before:?}");
        }
    }
}
