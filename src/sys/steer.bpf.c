// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Steering: which packets are the balancer's and which are the host's.
 *
 * One decision, three places where the kernel asks for it:
 *
 *   xvs_steer    XDP: the balancer's packets go to the AF_XDP socket of their queue. Without a socket
 *                (the engine died) they are dropped, never passed: the host would answer a RST and cut
 *                connections that the next engine would have kept.
 *   xvs_tap      socket filter of the AF_PACKET fallback: only the balancer's packets are copied up.
 *   xvs_ingress  tc ingress, beside xvs_tap: the taps have run, so the balancer's packets end here
 *                and the host does not see them.
 *
 * The balancer's packets are, when addressed to one of the interface's stations (MAC addresses):
 *   - packets to a virtual server (address, protocol, port; port 0 in the table means any port);
 *   - ICMP errors that quote a packet *from* a virtual server: what a real server sent with the VIP as
 *     its source could not be delivered;
 *   - fragments of a protocol that the VIP balances: later ones have no ports, and giving the host
 *     some fragments and the balancer others would help neither.
 * All else, ARP, VRRP, ssh and ping to the VIP included, is the host's.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* 802.1Q inside 802.1ad, or one of them alone. */
#define MAX_TAGS 2
/* Ethernet, two tags, two full IPv4 headers and an ICMP header end at 150; bounds the verifier's view. */
#define MAX_OFFSET 255
/* IPv4 frag_off: "more fragments" and the offset; the offset alone. RFC 791 section 3.1. */
#define FRAGMENT 0x3fff
#define FRAGMENT_OFFSET 0x1fff
/* ICMP types that quote a packet: RFC 792. <linux/icmp.h> would pull in the C library's headers. */
#define ICMP_DEST_UNREACH 3
#define ICMP_SOURCE_QUENCH 4
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
/* Virtual servers of one host. Entries take memory only while they exist. */
#define MAX_SERVICES 65536
/* Stations of all interfaces: one each, and one a VRRP virtual MAC (255 VRIDs). */
#define MAX_STATIONS 1024
/* Receive queues of one interface. */
#define MAX_QUEUES 256

/* Addresses are 16 bytes, IPv4 mapped (RFC 4291 section 2.5.5.2); ports in network order. */
struct service {
	__u8 addr[16];
	__be16 port;
	__u8 proto;
	__u8 zero;
};

struct vip {
	__u8 addr[16];
	__u8 proto;
	__u8 zero[3];
};

struct station {
	__u32 ifindex;
	__u8 mac[ETH_ALEN];
	__u8 zero[2];
};

struct vlan_tag {
	__be16 tci;
	__be16 proto;
};

/* An ICMP error up to the end of the quoted IPv4 header's fixed part. RFC 792. */
struct icmp_error {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__u32 rest;
	struct iphdr quoted;
};

enum counter { STEERED, PASSED, DROPPED, COUNTERS };

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_SERVICES);
	__type(key, struct service);
	__type(value, __u32);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_SERVICES);
	__type(key, struct vip);
	__type(value, __u32);
} vips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_STATIONS);
	__type(key, struct station);
	__type(value, __u32);
} stations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, MAX_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* Copies `len` bytes at `off` from the packet; non-zero when it is shorter. */
typedef int (*load_fn)(void *ctx, __u32 off, void *to, __u32 len);

static __always_inline int load_xdp(void *ctx, __u32 off, void *to, __u32 len)
{
	struct xdp_md *xdp = ctx;
	void *data = (void *)(long)xdp->data;
	void *end = (void *)(long)xdp->data_end;

	if (off > MAX_OFFSET)
		return -1;
	/* Every header starts at an even offset: two bytes a load, not one. */
	void *from = __builtin_assume_aligned(data + off, 2);
	if (from + len > end)
		return -1;
	__builtin_memcpy(to, from, len);
	return 0;
}

/* Works on paged skbs too, which direct access does not, and in a socket filter. */
static __always_inline int load_skb(void *ctx, __u32 off, void *to, __u32 len)
{
	return bpf_skb_load_bytes(ctx, off, to, len);
}

static __always_inline void map_v4(__u8 addr[16], __be32 v4)
{
	__builtin_memset(addr, 0, 10);
	addr[10] = 0xff;
	addr[11] = 0xff;
	__builtin_memcpy(addr + 12, &v4, 4);
}

static __always_inline int is_balanced(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP;
}

static __always_inline int is_service(__be32 addr, __be16 port, __u8 proto)
{
	struct service key = { .port = port, .proto = proto };

	map_v4(key.addr, addr);
	if (bpf_map_lookup_elem(&services, &key))
		return 1;
	key.port = 0;
	return bpf_map_lookup_elem(&services, &key) != 0;
}

static __always_inline int has_services(__be32 addr, __u8 proto)
{
	struct vip key = { .proto = proto };

	map_v4(key.addr, addr);
	return bpf_map_lookup_elem(&vips, &key) != 0;
}

static __always_inline int is_station(__u32 ifindex, const __u8 *mac)
{
	struct station key = { .ifindex = ifindex };

	__builtin_memcpy(key.mac, mac, ETH_ALEN);
	return bpf_map_lookup_elem(&stations, &key) != 0;
}

static __always_inline int is_error_about_service(void *ctx, load_fn load, __u32 off, __be32 daddr)
{
	struct icmp_error error;
	__be16 ports[2];

	if (load(ctx, off, &error, sizeof(error)))
		return 0;
	if (error.type != ICMP_DEST_UNREACH && error.type != ICMP_SOURCE_QUENCH &&
	    error.type != ICMP_TIME_EXCEEDED && error.type != ICMP_PARAMETERPROB)
		return 0;
	if (error.quoted.version != 4 || error.quoted.ihl < 5 || !is_balanced(error.quoted.protocol))
		return 0;
	/* The error goes to whom the quoted packet came from; anything else is a forgery or not ours. */
	if (error.quoted.saddr != daddr || (error.quoted.frag_off & bpf_htons(FRAGMENT_OFFSET)))
		return 0;
	off += __builtin_offsetof(struct icmp_error, quoted) + error.quoted.ihl * 4;
	if (load(ctx, off, ports, sizeof(ports)))
		return 0;
	return is_service(error.quoted.saddr, ports[0], error.quoted.protocol);
}

static __always_inline int is_ours_v4(void *ctx, load_fn load, __u32 off)
{
	struct iphdr ip;
	__be16 ports[2];

	if (load(ctx, off, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return 0;
	off += ip.ihl * 4;
	if (ip.protocol == IPPROTO_ICMP) {
		if (ip.frag_off & bpf_htons(FRAGMENT))
			return 0;
		return is_error_about_service(ctx, load, off, ip.daddr);
	}
	if (!is_balanced(ip.protocol))
		return 0;
	if (ip.frag_off & bpf_htons(FRAGMENT))
		return has_services(ip.daddr, ip.protocol);
	if (load(ctx, off, ports, sizeof(ports)))
		return 0;
	return is_service(ip.daddr, ports[1], ip.protocol);
}

static __always_inline int is_ours(void *ctx, load_fn load, __u32 ifindex)
{
	struct ethhdr eth;
	struct vlan_tag tag;
	__u32 off = sizeof(eth);

	if (load(ctx, 0, &eth, sizeof(eth)))
		return 0;
#pragma unroll
	for (int i = 0; i < MAX_TAGS; i++) {
		if (eth.h_proto != bpf_htons(ETH_P_8021Q) && eth.h_proto != bpf_htons(ETH_P_8021AD))
			break;
		if (load(ctx, off, &tag, sizeof(tag)))
			return 0;
		eth.h_proto = tag.proto;
		off += sizeof(tag);
	}
	if (eth.h_proto != bpf_htons(ETH_P_IP) || !is_ours_v4(ctx, load, off))
		return 0;
	/* Last, as it rarely says no: a switch that floods, or a promiscuous interface. */
	return is_station(ifindex, eth.h_dest);
}

static __always_inline void count(__u32 which)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &which);

	if (counter)
		*counter += 1;
}

SEC("xdp")
int xvs_steer(struct xdp_md *ctx)
{
	if (!is_ours(ctx, load_xdp, ctx->ingress_ifindex)) {
		count(PASSED);
		return XDP_PASS;
	}
	int action = bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_DROP);
	count(action == XDP_REDIRECT ? STEERED : DROPPED);
	return action;
}

SEC("tc")
int xvs_ingress(struct __sk_buff *skb)
{
	if (!is_ours(skb, load_skb, skb->ifindex)) {
		count(PASSED);
		/* The next filter's turn, if there is one. */
		return TC_ACT_UNSPEC;
	}
	count(STEERED);
	return TC_ACT_SHOT;
}

SEC("socket")
int xvs_tap(struct __sk_buff *skb)
{
	/* Bytes to copy up: all of them, or none. */
	return is_ours(skb, load_skb, skb->ifindex) ? -1 : 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
