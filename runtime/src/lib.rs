//! obgp-runtime, the program of the OVN BGP Agent pod's containers.
//!
//! ```text
//! init container       network, mapping.json -> frr-init -> frr.conf, daemons, vtysh.conf -> FRR
//!                                                        -> bgp-config.env ┐
//! agent's container    agent configuration, FRR's sockets ----------------> agent -> ovn-bgp-agent
//!                                                                             -> agent.pid, node.conf, rt_tables
//!                      ovn-bgp-agent -> state.json
//!                                    -> vtysh, sysctl              (links to this program)
//!                                    -> sudo obgp-runtime privsep  (starts a root helper)
//! probes               agent.pid, state.json, sockets, FRR -> health -> exit code, ready
//! preStop              FRR's sockets -> drain -> routes withdrawn, drained
//! site                 source registry -> image-repo-sync -> local registry
//! ```
//!
//! The modules, from the bottom up: a module imports only modules above it in this list. `tests/architecture.rs` checks that.
//!
//! | module | what it does |
//! |---|---|
//! | `failure` | the error type of all subcommands and its rendering |
//! | `signals` | termination signals during start-up |
//! | `optional_arg` | an option whose empty value means absent |
//! | `asn` | autonomous system numbers |
//! | `env_file` | writes and parses `bgp-config.env` |
//! | `files` | size-limited reads, atomic writes |
//! | `paths` | the files that the pod's containers share |
//! | [`rt_tables`] | parses iproute2's `rt_tables` |
//! | `netlink` | requests to the kernel: the socket, rtnetlink messages |
//! | `network` | interfaces, addresses, routes and neighbours as plain values |
//! | `bgp_peer` | the name and the ASN of a BGP peer: an address or an interface, a number or `external` |
//! | `node` | `bgp-config.env` -> the node's addresses, ASN and peers |
//! | `agent_options` | the agent's configuration -> the options needed here |
//! | `agent_pid` | `agent.pid` and /proc -> the state of the agent's process |
//! | [`vty`] | FRR's vty protocol |
//! | `vtysh` | `vtysh` for the agent: command lines -> FRR's daemons |
//! | `bgp` | FRR's BGP sessions and their problems |
//! | `peer` | chooses the leaf switches |
//! | `probe` | probes addresses (UDP, ICMP echo) |
//! | [`mapping`] | `mapping.json` -> the ASN of a leaf switch |
//! | `frr_config` | `frr-config`: sessions and options -> FRR's files |
//! | `report` | the report of `frr-init`, as text and JSON |
//! | `sysctl` | `sysctl` for the agent |
//! | `preflight` | checks that the agent can work in the container |
//! | `frr_init` | `frr-init`: discovers the network, writes FRR's files and `bgp-config.env` |
//! | `drain` | `drain`: withdraws the node's routes |
//! | `agent` | `agent`: waits, prepares, runs the agent |
//! | `health` | `health`: liveness, startup and readiness |
//! | [`privsep`] | `privsep`: the checked way from the agent's user to root |
//! | `image_repo_sync` | `image-repo-sync`: copies images between registries |
//! | [`cli`] | the command line |

mod agent;
mod agent_options;
mod agent_pid;
mod asn;
mod bgp;
mod bgp_peer;
pub mod cli;
mod drain;
mod env_file;
mod failure;
mod files;
mod frr_config;
mod frr_init;
mod health;
mod image_repo_sync;
pub mod mapping;
mod netlink;
mod network;
mod node;
mod optional_arg;
mod paths;
mod peer;
mod preflight;
pub mod privsep;
mod probe;
mod report;
pub mod rt_tables;
mod signals;
mod sysctl;
pub mod vty;
mod vtysh;
