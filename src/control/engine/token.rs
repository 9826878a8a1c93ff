//! Whose an event of the poll is: each part of control has tokens of its own.

use mio::Token;

/// A part of control that has something to be polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Part {
    /// Signals of the process.
    Signals,
    /// Netlink's notifications, of two sockets.
    Kernel,
    /// What other threads have to say: workers, and the reader of a new configuration.
    Threads,
    /// The guardian's end.
    Guardian,
    /// The control socket and its clients.
    Admin,
    /// Sockets of VRRP.
    Vrrp,
    /// Probes of the health checks.
    Checks,
}

impl Part {
    const ALL: [Self; 7] = [
        Self::Signals,
        Self::Kernel,
        Self::Threads,
        Self::Guardian,
        Self::Admin,
        Self::Vrrp,
        Self::Checks,
    ];

    /// Bits for the number within a part.
    const NUMBER_BITS: u32 = usize::BITS - u8::BITS;

    /// The token of the first thing of a part; what follows it, up to 2^56 on, is that part's too.
    pub(super) const fn first(self) -> usize {
        (self as usize) << Self::NUMBER_BITS
    }

    /// The token of a part that has only one.
    pub(super) const fn token(self) -> Token {
        Token(self.first())
    }

    /// The part that a token belongs to.
    pub(super) fn of(token: Token) -> Option<Self> {
        Self::ALL.get(token.0 >> Self::NUMBER_BITS).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_its_part() {
        for part in Part::ALL {
            for number in [0, 1, 1 << 20, (1 << Part::NUMBER_BITS) - 1] {
                assert_eq!(Part::of(Token(part.first() + number)), Some(part));
            }
        }
        assert_eq!(Part::of(Token(usize::MAX)), None);
    }
}
