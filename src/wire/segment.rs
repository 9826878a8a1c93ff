//! Cutting a packet that its sender left to a card to cut (TSO, USO), or that was merged on its way (GRO), as the card
//! would have: each segment a packet of its own with the headers of the whole, finished.

use super::{
    checksum, ethernet,
    ipv4::{self, Ipv4},
    ipv6::{self, Ipv6},
    tcp::{self, Tcp},
    udp, vlan,
};

/// FIN and PSH, which the last segment has only.
const LAST_ONLY: u8 = 0x09;
/// CWR, which the first segment has only. RFC 3168 §6.1.2.
const FIRST_ONLY: u8 = 0x80;
const SEQUENCE: usize = 4;
const FLAGS: usize = 13;
const UDP_LENGTH: usize = 4;

/// The segments of one packet, in order.
#[derive(Debug)]
pub struct Segments<'a> {
    frame: &'a [u8],
    network: usize,
    transport: usize,
    /// Where what is divided begins.
    payload: usize,
    end: usize,
    ipv6: bool,
    tcp: bool,
    /// Bytes of the payload in each segment but the last.
    size: usize,
    /// Where the next segment begins, from `payload` on.
    at: usize,
}

impl<'a> Segments<'a> {
    /// The segments of the packet in `frame`, each with `size` bytes of its payload, the last with what is left. `None`
    /// when it is no whole TCP or UDP packet with a payload.
    pub fn of(frame: &'a [u8], size: u16) -> Option<Self> {
        let (ether_type, network) = vlan::network_layer(frame)?;
        let packet = frame.get(network..)?;
        let (ipv6, protocol, header, total) = match ether_type {
            ethernet::TYPE_IPV4 => {
                let ip = Ipv4::quoted(packet).filter(|ip| !ip.is_fragment())?;
                (false, ip.protocol(), ip.header_len(), ip.total_len())
            }
            ethernet::TYPE_IPV6 => {
                let ip = Ipv6::quoted(packet)?;
                let upper = ip.upper(packet.get(ipv6::HEADER_LEN..)?).ok()?;
                upper.fragment.is_none().then_some(())?;
                (true, upper.protocol, upper.offset.into(), ip.total_len())
            }
            _ => return None,
        };
        let segment = packet.get(header..total)?;
        let own = match protocol {
            ipv4::PROTOCOL_TCP => Tcp::new(segment)?.header_len(),
            udp::PROTOCOL => udp::HEADER_LEN,
            _ => return None,
        };
        let (transport, end) = (network + header, network + total);
        let payload = transport + own;
        (header >= ipv4::MIN_HEADER_LEN && payload < end && size > 0).then_some(Self {
            frame,
            network,
            transport,
            payload,
            end,
            ipv6,
            tcp: protocol == ipv4::PROTOCOL_TCP,
            size: size.into(),
            at: 0,
        })
    }

    /// Whether there are no more.
    pub const fn is_done(&self) -> bool {
        self.payload + self.at >= self.end
    }

    /// Writes the next segment to the front of `buffer`, as a whole frame, and says how long it is. `None` after the
    /// last, or when it does not fit.
    pub fn write_next(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let start = self.payload + self.at;
        let rest = self
            .frame
            .get(start..self.end)
            .filter(|rest| !rest.is_empty())?;
        let (data, is_last) = match rest.get(..self.size) {
            Some(data) => (data, data.len() == rest.len()),
            None => (rest, true),
        };
        let length = self.payload + data.len();
        let out = buffer.get_mut(..length)?;
        out[..self.payload].copy_from_slice(&self.frame[..self.payload]);
        out[self.payload..].copy_from_slice(data);
        self.describe(out, is_last)?;
        self.at += data.len();
        Some(length)
    }

    /// Makes the headers of a segment say what it holds.
    fn describe(&self, out: &mut [u8], is_last: bool) -> Option<()> {
        let number = self.at / self.size;
        let total = out.len() - self.network;
        let (ip, segment) = out
            .get_mut(self.network..)?
            .split_at_mut_checked(self.transport - self.network)?;
        let length = segment.len();
        if self.tcp {
            let sequence: &mut [u8; 4] = segment.get_mut(SEQUENCE..)?.first_chunk_mut()?;
            let passed = u32::try_from(self.at).ok()?;
            *sequence = u32::from_be_bytes(*sequence)
                .wrapping_add(passed)
                .to_be_bytes();
            let flags = segment.get_mut(FLAGS)?;
            *flags &= !if is_last { 0 } else { LAST_ONLY };
            *flags &= !if number == 0 { 0 } else { FIRST_ONLY };
        } else {
            let length = u16::try_from(length).ok()?;
            segment
                .get_mut(UDP_LENGTH..UDP_LENGTH + 2)?
                .copy_from_slice(&length.to_be_bytes());
        }
        let (protocol, field) = if self.tcp {
            (ipv4::PROTOCOL_TCP, tcp::CHECKSUM_OFFSET)
        } else {
            (udp::PROTOCOL, udp::CHECKSUM_OFFSET)
        };
        let place = segment.get_mut(field..field + 2)?;
        let is_without = !self.tcp && *place == [0, 0];
        place.fill(0);
        let sum = if self.ipv6 {
            let length = u16::try_from(total - ipv6::HEADER_LEN).ok()?;
            ip.get_mut(4..6)?.copy_from_slice(&length.to_be_bytes());
            let addresses = Ipv6::quoted(ip)?.addresses();
            checksum::compute_with_pseudo_v6(addresses, protocol, segment)
        } else {
            let id = Ipv4::quoted(ip)?
                .id()
                .wrapping_add(u16::try_from(number).ok()?);
            ip.get_mut(2..4)?
                .copy_from_slice(&u16::try_from(total).ok()?.to_be_bytes());
            ip.get_mut(4..6)?.copy_from_slice(&id.to_be_bytes());
            ipv4::fill_checksum(ip);
            let [source, destination] = [12, 16].map(|at| ip[at..].first_chunk().copied());
            checksum::compute_with_pseudo_v4([source?, destination?], protocol, segment)
        };
        let sum = if self.tcp { sum } else { checksum::udp(sum) };
        if !is_without {
            segment.get_mut(field..field + 2)?.copy_from_slice(&sum);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

    use super::*;

    /// A packet whose checksum is not finished.
    fn large(six: bool, over_tcp: bool, payload: &[u8]) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let builder = if six {
            ethernet.ipv6([0x20; 16], [0x30; 16], 64)
        } else {
            ethernet.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        };
        let mut frame = Vec::new();
        if over_tcp {
            let mut header = etherparse::TcpHeader::new(4000, 80, u32::MAX - 100, 1000);
            header.acknowledgment_number = 7;
            (header.ack, header.psh, header.fin, header.cwr) = (true, true, true, true);
            header.set_options_raw(&[1; 12]).unwrap();
            builder.tcp_header(header).write(&mut frame, payload)
        } else {
            builder.udp(4000, 80).write(&mut frame, payload)
        }
        .unwrap();
        frame
    }

    #[test]
    fn segments_are_whole_packets_that_hold_the_payload_once() {
        let payload: Vec<u8> = (0..4001_u32).map(|n| n.to_be_bytes()[3]).collect();
        for (six, over_tcp) in [(false, true), (true, true), (false, false), (true, false)] {
            for size in [1448, 1333, 4001, 60_000] {
                let frame = large(six, over_tcp, &payload);
                let mut segments = Segments::of(&frame, size).unwrap();
                let mut buffer = [0xa5; 5000];
                let (mut all, mut count) = (Vec::new(), 0_u32);
                while let Some(length) = segments.write_next(&mut buffer) {
                    let sliced = SlicedPacket::from_ethernet(&buffer[..length]).unwrap();
                    let last = all.len() + usize::from(size) >= payload.len();
                    let data = match (sliced.transport.unwrap(), sliced.net.unwrap()) {
                        (TransportSlice::Tcp(tcp), net) => {
                            let header = tcp.to_header();
                            let sum = match &net {
                                etherparse::NetSlice::Ipv4(ip) => {
                                    assert_eq!(u32::from(ip.header().identification()), count);
                                    let header_sum = ip.header().to_header().calc_header_checksum();
                                    assert_eq!(ip.header().header_checksum(), header_sum);
                                    header
                                        .calc_checksum_ipv4(&ip.header().to_header(), tcp.payload())
                                }
                                etherparse::NetSlice::Ipv6(ip) => header
                                    .calc_checksum_ipv6(&ip.header().to_header(), tcp.payload()),
                                etherparse::NetSlice::Arp(_) => unreachable!("it is IP"),
                            };
                            assert_eq!(header.checksum, sum.unwrap());
                            let passed = u32::try_from(all.len()).unwrap();
                            let sequence = (u32::MAX - 100).wrapping_add(passed);
                            assert_eq!(header.sequence_number, sequence);
                            assert_eq!(
                                (header.fin, header.psh, header.cwr),
                                (last, last, count == 0)
                            );
                            assert_eq!(header.options.as_slice(), [1; 12]);
                            tcp.payload().to_vec()
                        }
                        (TransportSlice::Udp(udp), net) => {
                            let header = udp.to_header();
                            let sum = match &net {
                                etherparse::NetSlice::Ipv4(ip) => header
                                    .calc_checksum_ipv4(&ip.header().to_header(), udp.payload()),
                                etherparse::NetSlice::Ipv6(ip) => header
                                    .calc_checksum_ipv6(&ip.header().to_header(), udp.payload()),
                                etherparse::NetSlice::Arp(_) => unreachable!("it is IP"),
                            };
                            assert_eq!(header.checksum, sum.unwrap());
                            udp.payload().to_vec()
                        }
                        other => panic!("{other:?}"),
                    };
                    assert!(data.len() == usize::from(size) || last);
                    all.extend(data);
                    count += 1;
                }
                assert!(
                    all == payload,
                    "{six} {over_tcp} {size}: {} bytes",
                    all.len()
                );
            }
        }
    }

    #[test]
    fn what_is_no_packet_with_a_payload_has_no_segments() {
        let frame = large(false, true, b"payload");
        assert!(Segments::of(&frame, 0).is_none());
        for length in 0..frame.len() {
            assert!(
                Segments::of(&frame[..length], 5).is_none(),
                "{length} bytes"
            );
        }
        assert!(Segments::of(&large(true, false, b""), 5).is_none());
        let mut segments = Segments::of(&frame, 5).unwrap();
        assert_eq!(segments.write_next(&mut [0; 70]), None, "it does not fit");
        assert_eq!(segments.write_next(&mut [0; 80]), Some(66 + 5));
        assert_eq!(segments.write_next(&mut [0; 80]), Some(66 + 2));
        assert_eq!(segments.write_next(&mut [0; 80]), None);
    }
}
