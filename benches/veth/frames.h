/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What `frames.c` and `frames.bpf.c` have in common. */

/* Bytes after the UDP header: 60 in all, what a card makes of anything shorter. */
#define PAYLOAD 18
#define TTL 64
#define DONT_FRAGMENT 0x4000
/* Clients have addresses from 10.16.0.0 on and so many ports each; those of new flows are from 10.128.0.0 on. */
#define CLIENTS 0x0a100000
#define FRESH_CLIENTS 0x0a800000
#define CLIENT_PORTS 16
#define FIRST_PORT 1024
/* A prime, so that flows that follow each other have nothing in common. */
#define STRIDE 48271

/* What a program is to do. */
struct plan {
	__u8 to_mac[6], from_mac[6];
	/* Where the packet leaves. */
	__u32 ifindex;
	/* The side of the flows that is not the client, in network order. */
	__be32 other;
	__be16 other_port;
	/* The packets come from that side, and go to the clients. */
	__u8 answers;
	/* Of the sink: of the outer IP header. */
	__u8 protocol;
	__u32 flows;
	/* One packet in so many begins a flow; 0: none. The first of them has this number. */
	__u32 fresh_every;
	__u64 fresh_from;
};

struct tally {
	__u64 packets, fresh;
};
