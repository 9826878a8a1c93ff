//! Whether a packet fits the path to its real server, as IPVS's `ensure_mtu_is_adequate` judges it,
//! and what is done when it does not.

use super::{Family, Refused, TunnelKind, overhead};
use crate::wire::{
    ipv4::{self, Ipv4},
    ipv6,
};

/// What becomes of a packet for its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It goes on in one piece.
    Forward,
    /// It does not go on; its sender is told this MTU (a quote in [`icmp_error`](super::icmp_error)).
    TooBig(u16),
    /// It is cut, before anything else is put around it, in two fragments of up to this size: see
    /// [`split`].
    Split(u16),
    /// It goes into the tunnel, and the outer packet, which is IPv4 without DF, is cut in two
    /// fragments of up to this size.
    SplitOuter(u16),
    /// It is dropped without a word: the path's MTU is below what its family guarantees, or it is
    /// an ICMP error or a later fragment, about which no error may be sent.
    Drop,
}

/// A packet on its way to a real server.
#[derive(Clone, Copy, Debug)]
pub struct Passage {
    /// Its family.
    pub family: Family,
    /// Its length in bytes from the IP header on, without tunnel headers.
    pub length: usize,
    /// IPv4: "don't fragment" is set.
    pub dont_fragment: bool,
    /// It is an ICMP error, or a fragment other than the first: no error may be sent about it.
    pub silent: bool,
    /// MTU of the path to the real server: of the interface, or less where discovered. Bytes.
    pub path_mtu: u16,
    /// Family of the outer packet and kind of the tunnel, if there is one.
    pub tunnel: Option<(Family, TunnelKind)>,
}

/// Judges the size of a packet. Without `pmtu_disc` (IPVS's sysctl) the outer packet may be
/// fragmented whatever the inner one says.
///
/// Unlike IPVS, which fragments the outer packet for every inner one that may be, an outer IPv6
/// packet is never cut: an IPv4 packet is cut before it gets there, and one with DF is refused even
/// without `pmtu_disc`.
#[inline]
pub const fn fit(passage: &Passage, pmtu_disc: bool) -> Fit {
    let mtu = match passage.tunnel {
        None => passage.path_mtu,
        Some((outer, kind)) => {
            let least = match (passage.family, outer) {
                (Family::V6, Family::V6) => ipv6::MIN_MTU,
                // An IPv4 packet may be cut before it gets into an IPv6 tunnel.
                (Family::V4, _) | (_, Family::V4) => ipv4::MIN_MTU,
            };
            match passage.path_mtu.checked_sub(overhead(kind, outer)) {
                Some(left) if left >= least => left,
                _ => return Fit::Drop,
            }
        }
    };
    if passage.length <= mtu as usize {
        return Fit::Forward;
    }
    too_long(passage, mtu, pmtu_disc)
}

#[cold]
const fn too_long(passage: &Passage, mtu: u16, pmtu_disc: bool) -> Fit {
    let through_v4 = matches!(passage.tunnel, Some((Family::V4, _)));
    match passage.family {
        Family::V4 if through_v4 && !(passage.dont_fragment && pmtu_disc) => {
            Fit::SplitOuter(passage.path_mtu)
        }
        Family::V4 if !passage.dont_fragment => Fit::Split(mtu),
        // No host goes below 1280 (RFC 8200 §5), so that much must pass.
        Family::V6 if through_v4 && passage.length <= ipv6::MIN_MTU as usize => {
            Fit::SplitOuter(passage.path_mtu)
        }
        _ if passage.silent => Fit::Drop,
        Family::V6 if mtu < ipv6::MIN_MTU => Fit::TooBig(ipv6::MIN_MTU),
        _ => Fit::TooBig(mtu),
    }
}

/// Cuts an IPv4 packet of a frame in two fragments of at most `mtu` bytes; the second goes into
/// `second`, a frame of its own with the same Ethernet header and VLAN tags. A fragment can be cut
/// again. "Don't fragment" is cleared. Returns the lengths of both frames. RFC 791 §3.2.
///
/// # Errors
/// [`Refused::NotIp`]; [`Refused::TooLong`] when two fragments are not enough, `second` is too
/// short, or the packet has options, which would have to be sorted for the second one.
pub fn split(
    frame: &mut [u8],
    network: u8,
    mtu: u16,
    second: &mut [u8],
) -> Result<(usize, usize), Refused> {
    let network = usize::from(network);
    let packet = (frame.get(network..)).ok_or(Refused::Cut)?;
    let (ip, payload) = Ipv4::split(packet).map_err(|_| Refused::NotIp)?;
    if ip.has_options() {
        return Err(Refused::TooLong);
    }
    let header_len = ip.header_len();
    // Fragments start at multiples of eight bytes.
    let first_len = usize::from(mtu).saturating_sub(header_len) & !7;
    let second_len = payload.len().saturating_sub(first_len);
    if first_len == 0 || second_len == 0 || header_len + second_len > usize::from(mtu) {
        return Err(Refused::TooLong);
    }
    let (start, more) = (ip.fragment_offset(), ip.more_fragments());
    let field = |value: usize| u16::try_from(value).map_err(|_| Refused::TooLong);
    let place = (second.get_mut(..network + header_len + second_len)).ok_or(Refused::TooLong)?;
    let (headers, data) = place.split_at_mut(network + header_len);
    headers.copy_from_slice(frame.get(..network + header_len).ok_or(Refused::Cut)?);
    let rest = &payload[first_len..];
    data.copy_from_slice(rest);
    ipv4::set_fragment(
        &mut place[network..],
        field(header_len + second_len)?,
        field(start + first_len)?,
        more,
    )
    .ok_or(Refused::Cut)?;
    let length = network + header_len + first_len;
    let first = (frame.get_mut(network..length)).ok_or(Refused::Cut)?;
    ipv4::set_fragment(first, field(header_len + first_len)?, field(start)?, true)
        .ok_or(Refused::Cut)?;
    Ok((length, network + header_len + second_len))
}

#[cfg(test)]
#[path = "fit_tests.rs"]
mod tests;
