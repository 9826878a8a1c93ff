//! ICMP error messages and what they quote. RFC 792; RFC 1812 §4.3.2.

use super::ipv4::Ipv4;

/// Length of an error message's header, up to the packet that it quotes.
pub const HEADER_LEN: usize = 8;
/// Bytes of the quoted payload that every error carries: enough for both ports (RFC 792).
const QUOTED_PAYLOAD_LEN: usize = 8;

const TYPE_UNREACHABLE: u8 = 3;
const TYPE_SOURCE_QUENCH: u8 = 4;
const TYPE_TIME_EXCEEDED: u8 = 11;
const TYPE_PARAMETER_PROBLEM: u8 = 12;

/// An ICMP message about a packet, which it quotes.
#[derive(Clone, Copy, Debug)]
pub struct Error<'a> {
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
        let packet = message.get(HEADER_LEN..).ok_or(NotAnError::Malformed)?;
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
            quoted,
            ports: [a, b, c, d],
        })
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
