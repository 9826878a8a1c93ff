/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Where packets come from and where they end, and the least that can stand between. `frames.c` loads one of them.
 *
 *   source   writes a packet into a live frame of BPF_PROG_TEST_RUN and redirects it to the wire.
 *   sink     counts what it expects, and drops it.
 *   hop      sets the MAC addresses and redirects: what no forwarder can be faster than.
 */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/types.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "frames.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Set before the program is loaded, so that the kernel's compiler sees constants. */
const volatile struct plan plan = {};

/* By processor: packets that were sent or that arrived as expected. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tally);
} tallies SEC(".maps");

/* The packet whole, as it is on the wire. */
struct packet {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	__u8 payload[PAYLOAD];
} __attribute__((packed));

static __always_inline struct tally *tally(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&tallies, &zero);
}

static __always_inline void set_stations(struct ethhdr *eth)
{
	for (int i = 0; i < ETH_ALEN; i++) {
		eth->h_dest[i] = plan.to_mac[i];
		eth->h_source[i] = plan.from_mac[i];
	}
}

/* The Internet checksum of a sum of 16-bit words: RFC 1071. */
static __always_inline __u16 checksum(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline __u32 words(__u32 address)
{
	return (address >> 16) + (address & 0xffff);
}

SEC("xdp")
int source(struct xdp_md *context)
{
	struct packet *packet = (void *)(long)context->data;
	struct tally *count = tally();
	__u32 address, other = bpf_ntohl(plan.other);
	__u16 port, other_port = bpf_ntohs(plan.other_port);
	__u32 from, to, length = sizeof(struct udphdr) + PAYLOAD;
	__u32 ports, pseudo;

	if (!count || (void *)(packet + 1) > (void *)(long)context->data_end)
		return XDP_ABORTED;

	/* Frames come back as whoever had them left them: every byte of the headers is written. */
	if (plan.fresh_every && count->packets % plan.fresh_every == 0) {
		__u64 number = plan.fresh_from + count->fresh++;

		address = FRESH_CLIENTS + (number / CLIENT_PORTS);
		port = FIRST_PORT + number % CLIENT_PORTS;
	} else {
		/* The stride has no divisor in common with a number of flows: each has its turn. */
		__u64 number = count->packets * STRIDE % plan.flows;

		address = CLIENTS + (number / CLIENT_PORTS);
		port = FIRST_PORT + number % CLIENT_PORTS;
	}
	count->packets++;

	from = plan.answers ? other : address;
	to = plan.answers ? address : other;
	set_stations(&packet->eth);
	packet->eth.h_proto = bpf_htons(ETH_P_IP);
	packet->ip.version = 4;
	packet->ip.ihl = sizeof(struct iphdr) / 4;
	packet->ip.tos = 0;
	packet->ip.tot_len = bpf_htons(sizeof(struct iphdr) + length);
	packet->ip.id = 0;
	packet->ip.frag_off = bpf_htons(DONT_FRAGMENT);
	packet->ip.ttl = TTL;
	packet->ip.protocol = IPPROTO_UDP;
	packet->ip.saddr = bpf_htonl(from);
	packet->ip.daddr = bpf_htonl(to);
	packet->ip.check = bpf_htons(checksum(0x4500 + sizeof(struct iphdr) + length + DONT_FRAGMENT + (TTL << 8) +
					      IPPROTO_UDP + words(from) + words(to)));
	packet->udp.source = bpf_htons(plan.answers ? other_port : port);
	packet->udp.dest = bpf_htons(plan.answers ? port : other_port);
	packet->udp.len = bpf_htons(length);
	/* A payload of zeros has no part in it. */
	ports = (__u32)port + other_port;
	pseudo = words(from) + words(to) + IPPROTO_UDP + length;
	packet->udp.check = bpf_htons(checksum(pseudo + ports + length) ?: 0xffff);
	__builtin_memset(packet->payload, 0, sizeof(packet->payload));
	return bpf_redirect(plan.ifindex, 0);
}

/* The IPv4 header of a packet that is long enough to have one. */
static __always_inline struct iphdr *ipv4(struct xdp_md *context)
{
	struct ethhdr *eth = (void *)(long)context->data;
	struct iphdr *ip = (void *)(eth + 1);

	if ((void *)(ip + 1) > (void *)(long)context->data_end || eth->h_proto != bpf_htons(ETH_P_IP))
		return 0;
	return ip;
}

SEC("xdp")
int sink(struct xdp_md *context)
{
	struct iphdr *ip = ipv4(context);
	struct tally *count = tally();

	if (!count || !ip || (ip->protocol != IPPROTO_UDP && ip->protocol != IPPROTO_IPIP))
		return XDP_PASS;
	/* Whoever stood between has done its work if it comes from, or goes to, the one that it should. */
	if (ip->protocol == plan.protocol && (plan.answers ? ip->saddr : ip->daddr) == plan.other)
		count->packets++;
	return XDP_DROP;
}

SEC("xdp")
int hop(struct xdp_md *context)
{
	struct ethhdr *eth = (void *)(long)context->data;
	struct iphdr *ip = ipv4(context);

	if (!ip || ip->protocol != IPPROTO_UDP)
		return XDP_PASS;
	set_stations(eth);
	return bpf_redirect(plan.ifindex, 0);
}
