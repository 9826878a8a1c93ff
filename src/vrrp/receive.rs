//! Which received packets are adverts for an instance: the checks, cheapest first, each with its
//! name. RFC 3768 §7.1. A packet that fails one changes a counter and nothing else.

use std::{fmt, net::Ipv4Addr};

use super::settings::{Settings, Transport};
use crate::wire::vrrp::{self, AdvertView, Datagram, Malformed};

/// One list makes the enum, the number of reasons and their names.
macro_rules! reject_reasons {
    ($($(#[$doc:meta])+ $reason:ident => $name:literal,)+) => {
        /// Why a packet was refused, in the order of the checks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum RejectReason { $($(#[$doc])+ $reason,)+ }

        impl RejectReason {
            /// All reasons, in the order of the checks.
            pub const ALL: &[Self] = &[$(Self::$reason,)+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in counters.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$reason => $name,)+ }
            }
        }
    };
}

reject_reasons! {
    /// Not a whole IPv4 packet, or no room for a VRID. Counted by the router, not logged.
    Malformed => "malformed",
    /// Another IP protocol. Counted by the router, not logged.
    Protocol => "protocol",
    /// No instance has this VRID on this interface: other groups share the link. Counted by the
    /// router, not logged.
    UnknownVrid => "unknown-vrid",
    /// The instance is in INIT or FAULT. Not logged.
    NotRunning => "not-running",
    /// The TTL of a multicast advert is not 255: it came from another link.
    Ttl => "ttl",
    /// Another VRRP version.
    Version => "version",
    /// The length does not follow from the number of addresses.
    Length => "length",
    /// Not an advert.
    Kind => "type",
    /// The checksum is wrong.
    Checksum => "checksum",
    /// No authentication type of RFC 2338.
    AuthTypeUnknown => "auth-type-unknown",
    /// Authenticated in another way than this instance.
    AuthTypeMismatch => "auth-type-mismatch",
    /// Another password.
    Password => "password",
    /// Another advertisement interval.
    Interval => "interval",
    /// The source is 0.0.0.0, a group, broadcast or loopback.
    SourceInvalid => "source-invalid",
    /// The source is our own address.
    SourceOwn => "source-own",
    /// The source is not one of the unicast peers (`check_unicast_src`).
    SourceNotPeer => "source-not-peer",
    /// Sent to a group in unicast mode, or to an address in multicast mode.
    Destination => "destination",
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A failed check, with the numbers for its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) reason: RejectReason,
    pub(super) received: u32,
    pub(super) expected: u32,
}

/// How the addresses of an accepted advert differ from ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressMismatch {
    /// This many in the advert.
    Count(usize),
    /// This one of ours is not in the advert.
    Missing(Ipv4Addr),
}

/// All checks but the one of the addresses, which does not refuse.
pub(super) fn check<'a>(
    settings: &Settings,
    datagram: &Datagram<'a>,
) -> Result<AdvertView<'a>, Rejection> {
    if matches!(settings.transport, Transport::Multicast { .. }) && datagram.ttl != vrrp::TTL {
        return reject(RejectReason::Ttl, datagram.ttl, vrrp::TTL);
    }
    let advert = AdvertView::parse(datagram.payload)
        .map_err(|malformed| rejection_of(malformed, datagram.header_len))?;
    check_authentication(settings.password.as_ref(), &advert)?;
    let interval = settings.interval_secs();
    if advert.interval != interval {
        return reject(RejectReason::Interval, advert.interval, interval);
    }
    check_source(settings, datagram.source)?;
    let expected = match settings.transport {
        Transport::Multicast { group } => group,
        Transport::Unicast { .. } => settings.primary.unwrap_or(Ipv4Addr::UNSPECIFIED),
    };
    if datagram.destination != expected {
        return reject(RejectReason::Destination, datagram.destination, expected);
    }
    Ok(advert)
}

fn check_authentication(
    password: Option<&[u8; 8]>,
    advert: &AdvertView<'_>,
) -> Result<(), Rejection> {
    let expected = password.map_or(vrrp::AUTH_NONE, |_| vrrp::AUTH_PASS);
    if advert.auth_type > vrrp::AUTH_AH {
        return reject(RejectReason::AuthTypeUnknown, advert.auth_type, expected);
    }
    if advert.auth_type != expected {
        return reject(RejectReason::AuthTypeMismatch, advert.auth_type, expected);
    }
    match password {
        Some(password) if !same_bytes(password, &advert.auth_data) => {
            reject(RejectReason::Password, 0_u8, 0_u8)
        }
        _ => Ok(()),
    }
}

fn check_source(settings: &Settings, source: Ipv4Addr) -> Result<(), Rejection> {
    let impossible = source.is_unspecified()
        || source.is_multicast()
        || source.is_broadcast()
        || source.is_loopback();
    if impossible {
        return reject(RejectReason::SourceInvalid, source, 0_u8);
    }
    if settings.primary == Some(source) {
        return reject(RejectReason::SourceOwn, source, 0_u8);
    }
    match &settings.transport {
        Transport::Unicast {
            peers,
            check_source: true,
            ..
        } if !peers.contains(&source) => reject(RejectReason::SourceNotPeer, source, 0_u8),
        _ => Ok(()),
    }
}

/// Compares the addresses without regard to order, as keepalived does.
pub(super) fn compare_addresses(
    ours: &[Ipv4Addr],
    advert: &AdvertView<'_>,
) -> Option<AddressMismatch> {
    let ours = &ours[..ours.len().min(vrrp::MAX_ADDRESSES)];
    let received = advert.addresses().len();
    if received != ours.len() {
        return Some(AddressMismatch::Count(received));
    }
    // The same order is the rule. Otherwise sort: a flood of long lists must stay cheap.
    if advert.addresses().eq(ours.iter().copied()) {
        return None;
    }
    let mut announced: Vec<Ipv4Addr> = advert.addresses().collect();
    announced.sort_unstable();
    ours.iter()
        .find(|address| announced.binary_search(address).is_err())
        .map(|address| AddressMismatch::Missing(*address))
}

fn rejection_of(malformed: Malformed, header_len: usize) -> Rejection {
    let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let (reason, received, expected) = match malformed {
        Malformed::Version(version) => {
            (RejectReason::Version, version.into(), vrrp::VERSION.into())
        }
        Malformed::Length { received, expected } => (
            RejectReason::Length,
            number(header_len + received),
            number(header_len + expected),
        ),
        Malformed::Kind(kind) => (RejectReason::Kind, kind.into(), vrrp::ADVERTISEMENT.into()),
        Malformed::Checksum => (RejectReason::Checksum, 0, 0),
    };
    Rejection {
        reason,
        received,
        expected,
    }
}

fn reject<T>(
    reason: RejectReason,
    received: impl Into<u32>,
    expected: impl Into<u32>,
) -> Result<T, Rejection> {
    Err(Rejection {
        reason,
        received: received.into(),
        expected: expected.into(),
    })
}

/// Looks at every byte whatever the first ones say, so that time tells nothing of the password.
fn same_bytes(a: &[u8; 8], b: &[u8; 8]) -> bool {
    a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y)) == 0
}
