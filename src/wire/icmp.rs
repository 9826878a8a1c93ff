//! ICMP error messages and what they quote. RFC 792; RFC 1812 §4.3.2.

use super::ipv4::Ipv4;

/// Length of an error message's header, up to the packet that it quotes.
pub const HEADER_LEN: usize = 8;
/// Where the checksum lies in the header.
pub const CHECKSUM_OFFSET: usize = 2;
/// Bytes of a whole packet that holds an error message of ours. RFC 1812 §4.3.2.3.
pub const MAX_PACKET_LEN: usize = 576;

/// Bytes of the quoted payload that every error carries: enough for both ports (RFC 792).
pub(super) const QUOTED_PAYLOAD_LEN: usize = 8;

const TYPE_UNREACHABLE: u8 = 3;
const TYPE_SOURCE_QUENCH: u8 = 4;
const TYPE_REDIRECT: u8 = 5;
const TYPE_TIME_EXCEEDED: u8 = 11;
const TYPE_PARAMETER_PROBLEM: u8 = 12;
const CODE_PORT: u8 = 3;
const CODE_FRAGMENTATION_NEEDED: u8 = 4;
/// RFC 1191 §4: where a message of "fragmentation needed" gives the MTU of the next hop.
const MTU_OFFSET: usize = 6;

/// What is wrong with a packet, in a message of ours about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Its time to live does not allow another hop.
    TimeExceeded,
    /// Nobody serves its port.
    PortUnreachable,
    /// It is larger than this MTU of the next hop, in bytes, and may not be fragmented.
    TooBig(u16),
}

impl Problem {
    /// The header of an ICMP message about it; the checksum is zero.
    pub const fn header(self) -> [u8; HEADER_LEN] {
        match self {
            Self::TimeExceeded => [TYPE_TIME_EXCEEDED, 0, 0, 0, 0, 0, 0, 0],
            Self::PortUnreachable => [TYPE_UNREACHABLE, CODE_PORT, 0, 0, 0, 0, 0, 0],
            Self::TooBig(mtu) => {
                let [a, b] = mtu.to_be_bytes();
                let code = CODE_FRAGMENTATION_NEEDED;
                [TYPE_UNREACHABLE, code, 0, 0, 0, 0, a, b]
            }
        }
    }
}

/// Whether a message of this type reports an error: such are never reported themselves
/// (RFC 1122 §3.2.2).
pub const fn reports_error(message_type: u8) -> bool {
    matches!(
        message_type,
        TYPE_UNREACHABLE
            | TYPE_SOURCE_QUENCH
            | TYPE_REDIRECT
            | TYPE_TIME_EXCEEDED
            | TYPE_PARAMETER_PROBLEM
    )
}

/// An ICMP message about a packet, which it quotes.
#[derive(Clone, Copy, Debug)]
pub struct Error<'a> {
    header: &'a [u8; HEADER_LEN],
    quoted: Ipv4<'a>,
    ports: [u8; 4],
}

/// Why a message is not an error about a packet that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAnError {
    /// Another kind of message: an echo, a redirect, …
    Type,
    /// The message or the packet that it quotes is cut, or is no IPv4.
    Malformed,
    /// The quoted packet is a fragment without ports.
    LaterFragment,
}

impl<'a> Error<'a> {
    /// Reads `message`, which starts at the ICMP type.
    ///
    /// # Errors
    /// [`NotAnError`] says what it is instead.
    pub fn parse(message: &'a [u8]) -> Result<Self, NotAnError> {
        match message.first() {
            Some(
                &(TYPE_UNREACHABLE
                | TYPE_SOURCE_QUENCH
                | TYPE_TIME_EXCEEDED
                | TYPE_PARAMETER_PROBLEM),
            ) => {}
            Some(_) => return Err(NotAnError::Type),
            None => return Err(NotAnError::Malformed),
        }
        let (header, packet) = message.split_first_chunk().ok_or(NotAnError::Malformed)?;
        let quoted = Ipv4::quoted(packet).ok_or(NotAnError::Malformed)?;
        if quoted.version() != 4 || quoted.header_len() < super::ipv4::MIN_HEADER_LEN {
            return Err(NotAnError::Malformed);
        }
        if quoted.is_later_fragment() {
            return Err(NotAnError::LaterFragment);
        }
        let &[a, b, c, d, ..] = packet
            .get(quoted.header_len()..)
            .and_then(|payload| payload.first_chunk::<QUOTED_PAYLOAD_LEN>())
            .ok_or(NotAnError::Malformed)?;
        Ok(Self {
            header,
            quoted,
            ports: [a, b, c, d],
        })
    }

    /// The type of the message.
    pub const fn message_type(&self) -> u8 {
        self.header[0]
    }

    /// The code of the message.
    pub const fn code(&self) -> u8 {
        self.header[1]
    }

    /// The MTU that the quoted packet was too big for; `None` when the message is about something
    /// else. 0 is from a router that does not know RFC 1191.
    pub const fn mtu(&self) -> Option<u16> {
        if self.message_type() != TYPE_UNREACHABLE || self.code() != CODE_FRAGMENTATION_NEEDED {
            return None;
        }
        Some(u16::from_be_bytes(super::pair(self.header, MTU_OFFSET)))
    }

    /// Where the quoted packet's transport header starts in the message.
    pub const fn transport(&self) -> usize {
        HEADER_LEN + self.quoted.header_len()
    }

    /// The quoted packet's header.
    pub const fn quoted(&self) -> Ipv4<'a> {
        self.quoted
    }

    /// The quoted packet's source and destination port as they lie in its header.
    pub const fn ports(&self) -> [u8; 4] {
        self.ports
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ipv4::{PROTOCOL_TCP, Repr};

    fn message(kind: u8) -> Vec<u8> {
        let quoted = Repr {
            source: [10, 0, 0, 100].into(),
            destination: [10, 9, 9, 9].into(),
            protocol: PROTOCOL_TCP,
            ttl: 3,
            payload_len: 1480,
        };
        let mut bytes = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(quoted.emit());
        bytes.extend([0, 80, 0x1f, 0x90, 1, 2, 3, 4]);
        bytes
    }

    #[test]
    fn errors_give_the_quoted_flow() {
        for kind in [3, 4, 11, 12] {
            let bytes = message(kind);
            let error = Error::parse(&bytes).unwrap();
            assert_eq!(error.quoted().addresses(), [10, 0, 0, 100, 10, 9, 9, 9]);
            assert_eq!(error.ports(), [0, 80, 0x1f, 0x90]);
        }
    }

    #[test]
    fn a_message_says_what_is_wrong() {
        let mut bytes = message(11);
        bytes[6..8].copy_from_slice(&[5, 0xdc]);
        assert_eq!(Error::parse(&bytes).unwrap().mtu(), None);
        bytes[..2].copy_from_slice(&[3, 4]);
        let error = Error::parse(&bytes).unwrap();
        assert_eq!((error.message_type(), error.code()), (3, 4));
        assert_eq!(error.mtu(), Some(1500));
        assert_eq!(error.transport(), 28);
    }

    #[test]
    fn etherparse_reads_the_headers_that_we_write() {
        use etherparse::icmpv4::{DestUnreachableHeader as Unreachable, TimeExceededCode};
        for (problem, expected) in [
            (
                Problem::TimeExceeded,
                etherparse::Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit),
            ),
            (
                Problem::PortUnreachable,
                etherparse::Icmpv4Type::DestinationUnreachable(Unreachable::Port),
            ),
            (
                Problem::TooBig(1480),
                etherparse::Icmpv4Type::DestinationUnreachable(Unreachable::FragmentationNeeded {
                    next_hop_mtu: 1480,
                }),
            ),
        ] {
            let bytes = problem.header();
            assert_eq!(
                etherparse::Icmpv4Slice::from_slice(&bytes)
                    .unwrap()
                    .icmp_type(),
                expected
            );
            assert!(reports_error(bytes[0]));
        }
        assert!(!reports_error(0) && !reports_error(8));
    }

    #[test]
    fn other_messages_and_cut_ones_are_refused() {
        for kind in [0, 5, 8, 13] {
            assert_eq!(Error::parse(&message(kind)).err(), Some(NotAnError::Type));
        }
        let whole = message(3);
        for length in 0..whole.len() {
            assert_eq!(
                Error::parse(&whole[..length]).err(),
                Some(NotAnError::Malformed)
            );
        }
        let mut later = whole.clone();
        later[15] = 1;
        assert_eq!(Error::parse(&later).err(), Some(NotAnError::LaterFragment));
        let mut six = whole;
        six[8] = 0x65;
        assert_eq!(Error::parse(&six).err(), Some(NotAnError::Malformed));
    }
}
