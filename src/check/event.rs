//! What happened, in keepalived's words: operators' scripts and eyes look for these lines.

use std::fmt;

use super::settings::{Deferral, Member, ProbeError, ServiceName};
use crate::lvs::ServiceId;

/// Something that control logs and acts on (notify scripts, mail, a new service table).
///
/// `Display` is keepalived's log text where keepalived has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A checker is new, or asks something else than before.
    Activated {
        /// Whose checker.
        real: Member,
        /// Its name.
        name: ServiceName,
        /// The name of its virtual server.
        vs: ServiceName,
    },
    /// A probe failed, and that is reported: it decided, or `log_all_failures` asks for it.
    ProbeFailed {
        /// Whose checker.
        real: Member,
        /// Its name.
        name: ServiceName,
        /// Why.
        error: ProbeError,
    },
    /// A checker passed for the first time, or after having failed.
    CheckerUp {
        /// Whose checker.
        real: Member,
        /// Its name.
        name: ServiceName,
    },
    /// A checker failed.
    CheckerDown {
        /// Whose checker.
        real: Member,
        /// Its name.
        name: ServiceName,
        /// The kind of checker (`TCP_CHECK`).
        keyword: &'static str,
        /// Retries that were spent before.
        retries: u32,
    },
    /// The last failed checker of a real server passed.
    RealUp {
        /// Which.
        real: Member,
        /// Its name.
        name: ServiceName,
        /// The name of its virtual server.
        vs: ServiceName,
        /// It was in the pool with weight 0 (`inhibit_on_failure`), not out of it.
        inhibit: bool,
    },
    /// The first checker of a real server failed.
    RealDown {
        /// Which.
        real: Member,
        /// Its name.
        name: ServiceName,
        /// The name of its virtual server.
        vs: ServiceName,
        /// It stays in the pool with weight 0 (`inhibit_on_failure`).
        inhibit: bool,
    },
    /// A reload changed the weight of a real server.
    Weight {
        /// Which.
        real: Member,
        /// Its name.
        name: ServiceName,
        /// The name of its virtual server.
        vs: ServiceName,
        /// Before.
        from: u32,
        /// Now.
        to: u32,
        /// Whether it is up.
        up: bool,
    },
    /// The quorum of a virtual server was gained or lost.
    Quorum {
        /// Which virtual server.
        vs: ServiceId,
        /// Its name.
        name: ServiceName,
        /// Which way.
        change: QuorumChange,
        /// Sum of weights that is needed.
        quorum: u32,
        /// How much more is needed to gain it, and how much less is enough to keep it.
        hysteresis: u32,
        /// Sum of the weights of working real servers.
        weight: u64,
    },
    /// The sorry server takes over from the working real servers, or they from it.
    Sorry {
        /// Which virtual server.
        vs: ServiceId,
        /// Its name.
        name: ServiceName,
        /// The sorry server.
        sorry: ServiceName,
        /// It takes over; else it is no longer needed.
        active: bool,
        /// While not needed it is in the pool with weight 0 (`sorry_server_inhibit`).
        inhibit: bool,
    },
    /// The working real servers enter or leave the pool together, because a sorry
    /// server went or came.
    AliveMoved {
        /// Which virtual server.
        vs: ServiceId,
        /// Its name.
        name: ServiceName,
        /// They enter it.
        into: bool,
    },
    /// One checker's probe could not be started. Said once, until one could.
    ProbeDeferred {
        /// Whose checker.
        real: Member,
        /// Its name.
        name: ServiceName,
        /// Why.
        reason: Deferral,
    },
    /// This machine has run out of descriptors for probes. Said once, until it is over.
    ProbesPaused,
    /// Probes start again.
    ProbesResumed {
        /// How many starts failed meanwhile.
        deferred: u64,
    },
}

/// Which way a quorum went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuorumChange {
    /// The sum of weights reached quorum + hysteresis.
    Gained,
    /// The sum of weights fell below quorum - hysteresis, or to 0.
    Lost,
    /// It is not there at the start, and the sorry server is called.
    StartedWithout,
}

impl Event {
    /// The virtual server that it concerns.
    pub const fn virtual_server(&self) -> Option<ServiceId> {
        match self {
            Self::ProbeFailed { real, .. }
            | Self::CheckerUp { real, .. }
            | Self::CheckerDown { real, .. }
            | Self::RealUp { real, .. }
            | Self::RealDown { real, .. }
            | Self::Weight { real, .. }
            | Self::ProbeDeferred { real, .. } => Some(real.vs),
            Self::Quorum { vs, .. } | Self::Sorry { vs, .. } | Self::AliveMoved { vs, .. } => {
                Some(*vs)
            }
            // Nothing is another way for it yet.
            Self::Activated { .. } | Self::ProbesPaused | Self::ProbesResumed { .. } => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Activated { name, vs, .. } => {
                write!(f, "Activating healthchecker for service {name} for VS {vs}")
            }
            Self::ProbeFailed { name, error, .. } => {
                let word = match error {
                    ProbeError::Timeout => "timeout",
                    ProbeError::Connect(_) => "failed",
                };
                write!(f, "TCP connection to {name} {word}.")
            }
            Self::CheckerUp { name, .. } => write!(f, "TCP connection to {name} success."),
            Self::CheckerDown {
                name,
                keyword,
                retries,
                ..
            } => match retries {
                0 => write!(f, "{keyword} on service {name} failed."),
                n => write!(f, "{keyword} on service {name} failed after {n} retries."),
            },
            Self::RealUp {
                name, vs, inhibit, ..
            } => match inhibit {
                true => write!(f, "Enabling service {name} of VS {vs}"),
                false => write!(f, "Adding service {name} to VS {vs}"),
            },
            Self::RealDown {
                name, vs, inhibit, ..
            } => match inhibit {
                true => write!(f, "Disabling service {name} of VS {vs}"),
                false => write!(f, "Removing service {name} from VS {vs}"),
            },
            Self::Weight {
                name,
                vs,
                from,
                to,
                up,
                ..
            } => {
                let state = if *up { "active" } else { "inactive" };
                write!(f, "Changing weight from {from} to {to} for {state} ")?;
                write!(f, "service {name} of VS {vs}")
            }
            Self::Quorum {
                name,
                change,
                quorum,
                hysteresis,
                weight,
                ..
            } => {
                let sum = change.arithmetic(*quorum, *hysteresis, *weight);
                write!(f, "{sum} for VS {name}")
            }
            Self::Sorry {
                name,
                sorry,
                active,
                inhibit,
                ..
            } => {
                let (verb, way) = match (active, inhibit) {
                    (true, false) => ("Adding", "to"),
                    (true, true) => ("Enabling", "to"),
                    (false, false) => ("Removing", "from"),
                    (false, true) => ("Disabling", "from"),
                };
                write!(f, "{verb} sorry server {sorry} {way} VS {name}")
            }
            Self::AliveMoved { name, into, .. } => match into {
                true => write!(f, "Adding alive servers to the pool for VS {name}"),
                false => write!(f, "Removing alive servers from the pool for VS {name}"),
            },
            Self::ProbeDeferred { name, reason, .. } => {
                write!(f, "Check of {name} cannot start: {reason}. Rescheduling.")
            }
            Self::ProbesPaused => f.write_str("Checks are delayed: no free descriptors"),
            Self::ProbesResumed { deferred } => {
                write!(f, "Checks run again, {deferred} starts were delayed")
            }
        }
    }
}

impl QuorumChange {
    /// The comparison that was made, as keepalived shows it: `Lost quorum 1-0=1 > 0`.
    fn arithmetic(self, quorum: u32, hysteresis: u32, weight: u64) -> String {
        let (words, sign, relation) = match self {
            Self::Gained => ("Gained quorum", '+', "<="),
            Self::Lost => ("Lost quorum", '-', ">"),
            Self::StartedWithout => ("Starting with quorum down", '+', ">"),
        };
        let (q, h) = (u64::from(quorum), u64::from(hysteresis));
        let threshold = if sign == '+' {
            q + h
        } else {
            q.saturating_sub(h)
        };
        format!("{words} {quorum}{sign}{hysteresis}={threshold} {relation} {weight}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        addr::{Endpoint, L4Proto},
        lvs::RealId,
    };

    const fn name(last: u8) -> ServiceName {
        ServiceName {
            endpoint: Endpoint::new(
                std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, last)),
                80,
            ),
            protocol: L4Proto::Tcp,
        }
    }

    /// The texts on the right are keepalived 2.2.7's.
    #[test]
    fn texts_are_the_ones_that_operators_look_for() {
        let real = Member {
            vs: ServiceId(0),
            real: RealId(0),
        };
        let (vs, r, v) = (ServiceId(0), name(137), name(148));
        let failed = ProbeError::Connect("connection refused".into());
        let quorum = |change, quorum, hysteresis, weight| Event::Quorum {
            vs,
            name: v,
            change,
            quorum,
            hysteresis,
            weight,
        };
        let sorry = |active, inhibit| Event::Sorry {
            vs,
            name: v,
            sorry: r,
            active,
            inhibit,
        };
        let down = |retries| Event::CheckerDown {
            real,
            name: r,
            keyword: "TCP_CHECK",
            retries,
        };
        for (event, text) in [
            (
                Event::Activated {
                    real,
                    name: r,
                    vs: v,
                },
                "Activating healthchecker for service [10.0.0.137]:tcp:80 for VS [10.0.0.148]:tcp:80",
            ),
            (
                Event::ProbeFailed {
                    real,
                    name: r,
                    error: failed,
                },
                "TCP connection to [10.0.0.137]:tcp:80 failed.",
            ),
            (
                Event::ProbeFailed {
                    real,
                    name: r,
                    error: ProbeError::Timeout,
                },
                "TCP connection to [10.0.0.137]:tcp:80 timeout.",
            ),
            (
                Event::CheckerUp { real, name: r },
                "TCP connection to [10.0.0.137]:tcp:80 success.",
            ),
            (down(0), "TCP_CHECK on service [10.0.0.137]:tcp:80 failed."),
            (
                down(1),
                "TCP_CHECK on service [10.0.0.137]:tcp:80 failed after 1 retries.",
            ),
            (
                Event::RealDown {
                    real,
                    name: r,
                    vs: v,
                    inhibit: false,
                },
                "Removing service [10.0.0.137]:tcp:80 from VS [10.0.0.148]:tcp:80",
            ),
            (
                Event::RealUp {
                    real,
                    name: r,
                    vs: v,
                    inhibit: false,
                },
                "Adding service [10.0.0.137]:tcp:80 to VS [10.0.0.148]:tcp:80",
            ),
            (
                Event::RealDown {
                    real,
                    name: r,
                    vs: v,
                    inhibit: true,
                },
                "Disabling service [10.0.0.137]:tcp:80 of VS [10.0.0.148]:tcp:80",
            ),
            (
                Event::RealUp {
                    real,
                    name: r,
                    vs: v,
                    inhibit: true,
                },
                "Enabling service [10.0.0.137]:tcp:80 of VS [10.0.0.148]:tcp:80",
            ),
            (
                Event::Weight {
                    real,
                    name: r,
                    vs: v,
                    from: 1,
                    to: 5,
                    up: true,
                },
                "Changing weight from 1 to 5 for active service [10.0.0.137]:tcp:80 of VS \
                 [10.0.0.148]:tcp:80",
            ),
            (
                quorum(QuorumChange::Lost, 1, 0, 0),
                "Lost quorum 1-0=1 > 0 for VS [10.0.0.148]:tcp:80",
            ),
            (
                quorum(QuorumChange::Gained, 1, 0, 3),
                "Gained quorum 1+0=1 <= 3 for VS [10.0.0.148]:tcp:80",
            ),
            (
                quorum(QuorumChange::Lost, 5, 2, 2),
                "Lost quorum 5-2=3 > 2 for VS [10.0.0.148]:tcp:80",
            ),
            (
                quorum(QuorumChange::StartedWithout, 1, 0, 0),
                "Starting with quorum down 1+0=1 > 0 for VS [10.0.0.148]:tcp:80",
            ),
            (
                sorry(true, false),
                "Adding sorry server [10.0.0.137]:tcp:80 to VS [10.0.0.148]:tcp:80",
            ),
            (
                sorry(false, true),
                "Disabling sorry server [10.0.0.137]:tcp:80 from VS [10.0.0.148]:tcp:80",
            ),
            (
                Event::AliveMoved {
                    vs,
                    name: v,
                    into: false,
                },
                "Removing alive servers from the pool for VS [10.0.0.148]:tcp:80",
            ),
        ] {
            assert_eq!(event.to_string(), text);
        }
    }

    #[test]
    fn an_ipv6_name_has_one_pair_of_brackets() {
        let v6 = ServiceName {
            endpoint: Endpoint::new("2001:db8::1".parse().unwrap(), 443),
            protocol: L4Proto::Udp,
        };
        assert_eq!(v6.to_string(), "[2001:db8::1]:udp:443");
    }
}
