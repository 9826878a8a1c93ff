//! Reads the captures of `testdata/`: traffic of keepalived 2.2.7 between 192.0.2.1 (priority
//! 150, stopped after a while) and 192.0.2.2 (priority 100), VRID 51, VIPs 198.51.100.10 and .11.

/// Name, number of adverts, bytes.
pub(crate) const CAPTURES: &[(&str, usize, &[u8])] = &[
    ("v2-noauth", 16, include_bytes!("testdata/v2-noauth.pcap")),
    ("v2-pass", 16, include_bytes!("testdata/v2-pass.pcap")),
    ("v2-unicast", 16, include_bytes!("testdata/v2-unicast.pcap")),
];

/// The IPv4 packets of this protocol in a little-endian Ethernet capture, in order.
pub(crate) fn ipv4_packets(capture: &[u8], protocol: u8) -> Vec<Vec<u8>> {
    const FILE_HEADER: usize = 24;
    const RECORD_HEADER: usize = 16;
    const ETHERNET: usize = 14;
    let mut packets = Vec::new();
    let mut rest = &capture[FILE_HEADER..];
    while !rest.is_empty() {
        let (header, tail) = rest.split_at(RECORD_HEADER);
        let length = u32::from_le_bytes(header[8..12].try_into().unwrap());
        let (frame, tail) = tail.split_at(length.try_into().unwrap());
        rest = tail;
        if frame[12..ETHERNET] == [8, 0] && frame[ETHERNET + 9] == protocol {
            packets.push(frame[ETHERNET..].to_vec());
        }
    }
    packets
}
