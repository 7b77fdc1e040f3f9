//! Addresses -> which of them answer. All are probed at once, with the methods that the process is permitted to use.
//!
//! | method | needs | limitation |
//! |---|---|---|
//! | UDP datagram: the kernel resolves the address (ARP, ND), and netlink reports the result; a closed port answers with an ICMP error | nothing | the kernel does not resolve a known neighbour again at once |
//! | ICMP echo through an unprivileged datagram socket | a group in net.ipv4.ping_group_range | a switch may ignore echo requests |
//! | ICMP echo through a raw socket, if the former is not permitted | CAP_NET_RAW | the same |
//! | confirmation of a known neighbour by the kernel | CAP_NET_ADMIN | – |
//!
//! So an on-link address that the kernel does not know yet is found without any capability, even if it filters other traffic. Neighbours
//! that the kernel already knows are the next step of the discovery. Raw ARP would find nothing that the kernel's ARP does not.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, socket_with};

use crate::network::{Neighbor, NeighborState, Netlink};
use crate::peer::{NetworkProbe, Purpose, Reachable};

/// The time limit of a probe for the report: frr-init should finish within 50 ms.
const REPORT: Duration = Duration::from_millis(20);
/// The interval after which probes are repeated, because one may be lost.
const RESEND: Duration = Duration::from_millis(250);
const SHORTEST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);
/// The discard service (RFC 863): usually closed, otherwise without effect.
const PORT: u16 = 9;

pub struct Prober {
    netlink: Netlink,
    index: u32,
    source: IpAddr,
    /// The time limit of a probe for a decision.
    decision: Duration,
    /// Remarks for the user: probes that failed or got no answer.
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

impl NetworkProbe for Prober {
    fn probe(&mut self, targets: &[IpAddr], purpose: Purpose) -> Vec<Reachable> {
        let wait = match purpose {
            Purpose::Decision => self.decision,
            Purpose::Report => self.decision.min(REPORT),
        };
        let mut probes = Vec::new();
        for target in targets {
            // For an IPv6 target the kernel chooses the source address.
            let source = Some(self.source).filter(|source| source.is_ipv4() == target.is_ipv4());
            let before = self.state(*target);
            if before == NeighborState::Stale {
                // Fails without the capability. The other methods remain.
                let _ = self.netlink.confirm(self.index, *target);
            }
            probes.push(Probe::new(*target, source, before));
        }
        let start = Instant::now();
        let mut sent = None;
        let mut pause = SHORTEST_PAUSE;
        loop {
            if sent.is_none_or(|sent: Instant| sent.elapsed() >= RESEND) {
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
        if purpose == Purpose::Report {
            // The kernel got an answer less than a minute ago. That is enough for the report, but not for a decision.
            for probe in probes
                .iter_mut()
                .filter(|probe| probe.before == NeighborState::Reachable)
            {
                probe.answered = true;
            }
        }
        for probe in &probes {
            if probe.answered {
                continue;
            }
            for problem in &probe.problems {
                self.note(format!("probe of {}: {problem}", probe.target));
            }
            if purpose == Purpose::Report {
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
    /// At least one probe was sent.
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
        let udp = keep("UDP is not available", udp(target, source));
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
                // An ICMP error in answer to the previous datagram.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => self.answered = true,
                Err(error) => {
                    let problem = format!("cannot send: {error}");
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
                // An ICMP "port unreachable": the host exists.
                Err(error) => self.answered |= error.kind() == io::ErrorKind::ConnectionRefused,
            }
        }
        if let Some(socket) = &self.echo {
            // A raw socket also receives other ICMP messages from the target. Any of them shows that it exists.
            self.answered |= socket.recv(&mut buffer).is_ok_and(|length| length > 0);
        }
        // Resolved because of this probe. An earlier entry may be old.
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

/// An ICMP socket with the interface of a connected UDP socket: it sends and receives ICMP messages.
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

/// An echo request (RFC 792, RFC 4443). The kernel fills in the checksum for ICMPv6 and for datagram sockets.
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
    fn the_sum_including_the_checksum_is_all_ones() {
        for sequence in [1, 2, 0xff00] {
            let message = echo_request([10, 0, 0, 1].into(), sequence);
            let sum: u32 = message
                .chunks_exact(2)
                .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
                .sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        }
    }

    /// On the loopback interface a closed port answers, without any capability.
    #[test]
    fn a_closed_port_counts_as_an_answer() {
        let mut probe = Probe::new([127, 0, 0, 1].into(), None, NeighborState::Unknown);
        probe.echo = None;
        probe.send();
        std::thread::sleep(Duration::from_millis(50));
        probe.listen(&[]);
        assert_eq!(probe.result(), Reachable::Yes, "{:?}", probe.problems);
    }

    #[test]
    fn a_neighbour_resolved_by_the_probe_counts_as_an_answer_and_a_known_one_does_not() {
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
