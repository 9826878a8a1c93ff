//! ICMPv6 error messages and what they quote. RFC 4443.

use super::{
    icmp::{NotAnError, Problem, QUOTED_PAYLOAD_LEN},
    ipv6::{self, Ipv6, Upper},
    quad,
};

/// Length of an error message's header, up to the packet that it quotes.
pub const HEADER_LEN: usize = 8;
/// Where the checksum lies in the header.
pub const CHECKSUM_OFFSET: usize = 2;
/// Bytes of a whole packet that holds an error message of ours. RFC 4443 §2.4(c).
pub const MAX_PACKET_LEN: usize = ipv6::MIN_MTU as usize;

const TYPE_UNREACHABLE: u8 = 1;
const TYPE_TOO_BIG: u8 = 2;
const TYPE_TIME_EXCEEDED: u8 = 3;
const TYPE_PARAMETER_PROBLEM: u8 = 4;
const TYPE_REDIRECT: u8 = 137;
const CODE_PORT: u8 = 4;
const MTU_OFFSET: usize = 4;

/// The header of a message about `problem`; the checksum is zero.
pub const fn header(problem: Problem) -> [u8; HEADER_LEN] {
    match problem {
        Problem::TimeExceeded => [TYPE_TIME_EXCEEDED, 0, 0, 0, 0, 0, 0, 0],
        Problem::PortUnreachable => [TYPE_UNREACHABLE, CODE_PORT, 0, 0, 0, 0, 0, 0],
        Problem::TooBig(mtu) => {
            let [a, b] = mtu.to_be_bytes();
            [TYPE_TOO_BIG, 0, 0, 0, 0, 0, a, b]
        }
    }
}

/// Whether a message of this type reports an error, or is a redirect: such are never reported
/// themselves (RFC 4443 §2.4(e)).
pub const fn reports_error(message_type: u8) -> bool {
    message_type < 128 || message_type == TYPE_REDIRECT
}

/// An ICMPv6 message about a packet, which it quotes.
#[derive(Clone, Copy, Debug)]
pub struct Error<'a> {
    header: &'a [u8; HEADER_LEN],
    quoted: Ipv6<'a>,
    upper: Upper,
    ports: [u8; 4],
}

impl<'a> Error<'a> {
    /// Reads `message`, which starts at the ICMPv6 type.
    ///
    /// # Errors
    /// [`NotAnError`] says what it is instead.
    pub fn parse(message: &'a [u8]) -> Result<Self, NotAnError> {
        match message.first() {
            Some(
                &(TYPE_UNREACHABLE | TYPE_TOO_BIG | TYPE_TIME_EXCEEDED | TYPE_PARAMETER_PROBLEM),
            ) => {}
            Some(_) => return Err(NotAnError::Type),
            None => return Err(NotAnError::Malformed),
        }
        let (header, packet) = message.split_first_chunk().ok_or(NotAnError::Malformed)?;
        let quoted = Ipv6::quoted(packet)
            .filter(|quoted| quoted.version() == 6)
            .ok_or(NotAnError::Malformed)?;
        let payload = packet.get(ipv6::HEADER_LEN..).unwrap_or_default();
        let upper = quoted.upper(payload).map_err(|_| NotAnError::Malformed)?;
        if upper.is_later_fragment() {
            return Err(NotAnError::LaterFragment);
        }
        let &[a, b, c, d, ..] = packet
            .get(usize::from(upper.offset)..)
            .and_then(|payload| payload.first_chunk::<QUOTED_PAYLOAD_LEN>())
            .ok_or(NotAnError::Malformed)?;
        Ok(Self {
            header,
            quoted,
            upper,
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
    /// else.
    pub const fn mtu(&self) -> Option<u32> {
        if self.message_type() != TYPE_TOO_BIG {
            return None;
        }
        Some(u32::from_be_bytes(quad(self.header, MTU_OFFSET)))
    }

    /// The quoted packet's header.
    pub const fn quoted(&self) -> Ipv6<'a> {
        self.quoted
    }

    /// The quoted packet's upper protocol.
    pub const fn protocol(&self) -> u8 {
        self.upper.protocol
    }

    /// Where the quoted packet's transport header starts in the message.
    pub const fn transport(&self) -> usize {
        HEADER_LEN + self.upper.offset as usize
    }

    /// The quoted packet's source and destination port as they lie in its header.
    pub const fn ports(&self) -> [u8; 4] {
        self.ports
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message that quotes the first bytes of a TCP segment behind `extensions`.
    fn message(kind: u8, next: u8, extensions: &[u8]) -> Vec<u8> {
        let quoted = ipv6::Repr {
            source: "2001:db8::100".parse().unwrap(),
            destination: "2001:db8:9::9".parse().unwrap(),
            traffic_class: 0,
            protocol: next,
            hop_limit: 3,
            payload_len: 1400,
        };
        let mut bytes = vec![kind, 0, 0, 0, 0, 0, 5, 0xdc];
        bytes.extend(quoted.emit());
        bytes.extend(extensions);
        bytes.extend([0, 80, 0x1f, 0x90, 1, 2, 3, 4]);
        bytes
    }

    #[test]
    fn errors_give_the_quoted_flow() {
        for kind in 1..=4 {
            let bytes = message(kind, 6, &[]);
            let error = Error::parse(&bytes).unwrap();
            assert_eq!(error.quoted().source().to_string(), "2001:db8::100");
            assert_eq!((error.protocol(), error.transport()), (6, 48));
            assert_eq!(error.ports(), [0, 80, 0x1f, 0x90]);
            assert_eq!((error.message_type(), error.code()), (kind, 0));
            assert_eq!(error.mtu(), (kind == 2).then_some(1500));
        }
        let behind = message(1, 60, &[6, 0, 1, 4, 0, 0, 0, 0]);
        let error = Error::parse(&behind).unwrap();
        assert_eq!((error.protocol(), error.transport()), (6, 56));
        assert_eq!(error.ports(), [0, 80, 0x1f, 0x90]);
    }

    #[test]
    fn other_messages_and_cut_ones_are_refused() {
        for kind in [0, 5, 100, 128, 135, 137] {
            let other = message(kind, 6, &[]);
            assert_eq!(Error::parse(&other).err(), Some(NotAnError::Type));
        }
        let whole = message(1, 60, &[6, 0, 1, 4, 0, 0, 0, 0]);
        for length in 0..whole.len() {
            let cut = Error::parse(&whole[..length]).err();
            assert_eq!(cut, Some(NotAnError::Malformed), "{length} bytes");
        }
        let later = message(1, 44, &[6, 0, 5, 0xa8, 0, 0, 0, 1]);
        assert_eq!(Error::parse(&later).err(), Some(NotAnError::LaterFragment));
        let mut four = message(1, 6, &[]);
        four[8] = 0x45;
        assert_eq!(Error::parse(&four).err(), Some(NotAnError::Malformed));
    }

    #[test]
    fn etherparse_reads_the_headers_that_we_write() {
        use etherparse::{
            Icmpv6Type,
            icmpv6::{DestUnreachableCode, TimeExceededCode},
        };
        for (problem, expected) in [
            (
                Problem::TimeExceeded,
                Icmpv6Type::TimeExceeded(TimeExceededCode::HopLimitExceeded),
            ),
            (
                Problem::PortUnreachable,
                Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Port),
            ),
            (
                Problem::TooBig(1280),
                Icmpv6Type::PacketTooBig { mtu: 1280 },
            ),
        ] {
            let bytes = header(problem);
            let theirs = etherparse::Icmpv6Slice::from_slice(&bytes).unwrap();
            assert_eq!(theirs.icmp_type(), expected);
            assert!(reports_error(bytes[0]));
        }
        assert!(!reports_error(128) && reports_error(137));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            next in prop::sample::select(vec![0_u8, 43, 44, 51, 60, 6]),
        ) {
            if bytes.len() > 14 {
                (bytes[0], bytes[8], bytes[14]) = (1, 0x60, next);
            }
            if let Ok(error) = Error::parse(&bytes) {
                prop_assert!(error.transport() + 8 <= bytes.len());
            }
        }
    }
}
