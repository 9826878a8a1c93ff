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
 *                It goes on to xvs_judge: a socket pays for the length of its filter, and may not pay
 *                for more than net.core.optmem_max (20 KB before Linux 6.8) takes.
 *   xvs_ingress  tc ingress, beside xvs_tap: the taps have run, so the balancer's packets end here
 *                and the host does not see them.
 *
 * The balancer's packets, IPv4 and IPv6 alike, are, when addressed to one of the interface's stations
 * (MAC addresses):
 *   - packets to a virtual server: by address, protocol and port (port 0 in a table means any port),
 *     by a prefix of addresses, or by a rule with port ranges and sources;
 *   - packets from a NAT real server to anybody but this host: answers that want their virtual server's
 *     address back. What a real server answers to this host's own health checks is the host's;
 *   - fragments of a protocol that the address balances: later ones have no ports, and giving the host
 *     some fragments and the balancer others would help neither;
 *   - ICMP errors that quote a packet which the balancer sent or let through. An error is judged as the
 *     packet that would answer the quoted one: what a virtual server sent could not be delivered (the
 *     answer would go to the virtual server), or what we sent to a NAT real server (it would come from
 *     there). Beside these, errors about our own tunnel packets to a real server.
 * All else, ARP, neighbour discovery, VRRP, ssh and ping to the VIP included, is the host's; so are
 * IPv6 packets whose extension headers go on beyond what is followed here: their protocol is unknown.
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
/*
 * Where the last header that is looked at may begin. Ethernet, two tags, two full IPv4 headers and an
 * ICMP header end at 150; IPv6 extension headers make it more. Bounds the verifier's view.
 */
#define MAX_OFFSET 511
/*
 * Extension headers of one IPv6 packet that are followed. RFC 8200 section 4.1 has at most six before
 * the ports (destination options twice), without encryption, which hides them.
 */
#define MAX_EXTENSIONS 6
/* IPv4 frag_off: "more fragments" and the offset; the offset alone. RFC 791 section 3.1. */
#define FRAGMENT 0x3fff
#define FRAGMENT_OFFSET 0x1fff
/* The same of the IPv6 fragment header. RFC 8200 section 4.5. */
#define FRAGMENT_V6 0xfff9
#define FRAGMENT_V6_OFFSET 0xfff8
/* IPv6 next headers, and one protocol. <linux/in6.h> would pull in the C library's headers. */
#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_AUTHENTICATION 51
#define NEXT_ICMPV6 58
#define NEXT_DESTINATION 60
/* ICMP types that quote a packet: RFC 792. <linux/icmp.h> would, too. */
#define ICMP_DEST_UNREACH 3
#define ICMP_SOURCE_QUENCH 4
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
/* The same of ICMPv6 have the types 1 to 4: RFC 4443 section 2.1. */
#define ICMPV6_DEST_UNREACH 1
#define ICMPV6_PARAMETERPROB 4
/* Virtual servers of one host, and NAT real servers. Entries take memory only while they exist. */
#define MAX_SERVICES 65536
#define MAX_REALS 262144
/* Each of them may be the only one of its address, and then brings an entry for its fragments. */
#define MAX_ENDPOINTS (2 * MAX_SERVICES)
#define MAX_RETURNS (2 * MAX_REALS)
/* Addresses of this host, of which each VIP is one while MASTER; tunnel real servers. */
#define MAX_HOSTS 65536
/* Rules with port ranges or sources are walked one by one: as many as a word has bits. */
#define MAX_RULES 64
/* Stations of all interfaces: one each, and one a VRRP virtual MAC (255 VRIDs). */
#define MAX_STATIONS 1024
/* Receive queues of one interface. */
#define MAX_QUEUES 256

/*
 * Keys and values of maps, and the constants about them, are known to Rust from here: build.rs writes
 * their types. So they have no holes, and what is in network order is of a type that says so.
 */

/* endpoint.kind: the IP version, and whether this is about fragments, without ports. */
#define KIND_V4 4
#define KIND_V6 6
#define KIND_FAMILY 0x0f
#define KIND_FRAGMENT 0x80

/* features.flags: which further tables have anything to look for. */
#define HAS_ANY_PORT 1
#define HAS_PREFIXES 2
#define HAS_ANY_PORT_PREFIXES 4
#define HAS_RETURNS 8
#define HAS_ANY_PORT_RETURNS 16

/* Places in `counters`. */
#define COUNT_STEERED 0
#define COUNT_PASSED 1
#define COUNT_DROPPED 2
#define COUNT_FORWARDED 3
#define COUNTERS 4

/* 16 bytes in network order, IPv4 mapped (RFC 4291 section 2.5.5.2). */
struct addr {
	__be32 word[4];
};

/* The key of every table of addresses. What does not matter in a table is zero. */
struct endpoint {
	union {
		struct {
			__u8 proto;
			__u8 kind;
			__be16 port;
		};
		/* All three, to be written at once: reading back as a word what was written in pieces stalls. */
		__u32 head;
	};
	struct addr addr;
};

struct prefix {
	__u32 bits;
	struct endpoint first;
};

/* A virtual server by packet mark. Ports in host order, both ends included. */
struct rule {
	struct addr dst, dst_mask;
	struct addr src, src_mask;
	__u16 dport_min, dport_max;
	__u16 sport_min, sport_max;
	__u8 proto;
	__u8 kind;
	__u8 zero[6];
};

/* Lets the common packet skip what is not configured. Each member is written at once. */
struct features {
	__u32 flags;
	__u32 zero;
	/* A bit for each rule in force. */
	__u64 rules;
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

/* RFC 8200 section 3. */
struct ipv6_header {
	__be32 version_class_label;
	__be16 payload_len;
	__u8 next;
	__u8 hop_limit;
	struct addr src, dst;
};

/* The first half of any extension header; `fragment` is just the fragment header's. */
struct extension {
	__u8 next;
	__u8 len;
	__be16 fragment;
};

/* An ICMP or ICMPv6 error up to the quoted packet. RFC 792, RFC 4443. */
struct icmp_error {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__u32 rest;
};

enum fragment { WHOLE, FIRST, LATER };

/* What is decided by. Both ends name protocol and kind, and so are keys as they are. */
struct packet {
	struct endpoint src, dst;
	__u32 proto;
	__u32 fragment;
};

/* Packets to these. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_ENDPOINTS);
	__type(key, struct endpoint);
	__type(value, __u32);
} services SEC(".maps");

/* Packets to these. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_ENDPOINTS);
	__type(key, struct prefix);
	__type(value, __u32);
} prefixes SEC(".maps");

/* Packets that match these. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_RULES);
	__type(key, __u32);
	__type(value, struct rule);
} rules SEC(".maps");

/* Packets from these: NAT real servers. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_RETURNS);
	__type(key, struct endpoint);
	__type(value, __u32);
} returns SEC(".maps");

/* Errors about tunnel packets to these: real server, outer protocol, and port of an outer UDP. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_HOSTS);
	__type(key, struct endpoint);
	__type(value, __u32);
} tunnels SEC(".maps");

/* This host's own addresses; no protocol, no port. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_HOSTS);
	__type(key, struct endpoint);
	__type(value, __u32);
} locals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct features);
} features SEC(".maps");

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

/* xvs_judge, put here when it is loaded. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} judges SEC(".maps");

/* Copies `len` bytes at `off` from the packet; non-zero when it is shorter. */
typedef int (*load_fn)(void *ctx, __u32 off, void *to, __u32 len);

static __always_inline int load_xdp(void *ctx, __u32 off, void *to, __u32 len)
{
	struct xdp_md *xdp = ctx;
	void *data = (void *)(long)xdp->data;
	void *end = (void *)(long)xdp->data_end;

	__u64 at = off;
	/* Hides how `off` came about: the verifier is to see the bound on what it sees added to `data`. */
	asm volatile("" : "+r"(at));
	if (at > MAX_OFFSET)
		return -1;
	/* Every header starts at an even offset: two bytes a load, not one. */
	void *from = __builtin_assume_aligned(data + at, 2);
	if (from + len > end)
		return -1;
	__builtin_memcpy(to, from, len);
	return 0;
}

/* Works on paged skbs too, which direct access does not, and in a socket filter. */
static __always_inline int load_skb(void *ctx, __u32 off, void *to, __u32 len)
{
	/* The same bound, so that every hook decides alike. */
	if (off > MAX_OFFSET)
		return -1;
	return bpf_skb_load_bytes(ctx, off, to, len);
}

static __always_inline struct addr map_v4(__be32 v4)
{
	return (struct addr){ .word = { 0, 0, bpf_htonl(0xffff), v4 } };
}

static __always_inline int is_same(const struct addr *a, const struct addr *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
	       a->word[3] == b->word[3];
}

static __always_inline int is_within(const struct addr *a, const struct addr *net,
				     const struct addr *mask)
{
	return !(((a->word[0] ^ net->word[0]) & mask->word[0]) |
		 ((a->word[1] ^ net->word[1]) & mask->word[1]) |
		 ((a->word[2] ^ net->word[2]) & mask->word[2]) |
		 ((a->word[3] ^ net->word[3]) & mask->word[3]));
}

static __always_inline int is_balanced(__u32 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP;
}

static __always_inline int is_extension(__u8 next)
{
	return next == NEXT_HOP_BY_HOP || next == NEXT_ROUTING || next == NEXT_FRAGMENT ||
	       next == NEXT_AUTHENTICATION || next == NEXT_DESTINATION;
}

/* Reads the IP header at `off`. Gives the offset of what it carries, below zero if there is nothing. */
static __always_inline int read_v4(void *ctx, load_fn load, __u32 off, struct packet *packet)
{
	struct iphdr ip;

	if (load(ctx, off, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return -1;
	packet->src.addr = map_v4(ip.saddr);
	packet->dst.addr = map_v4(ip.daddr);
	packet->proto = ip.protocol;
	if (ip.frag_off & bpf_htons(FRAGMENT))
		packet->fragment = ip.frag_off & bpf_htons(FRAGMENT_OFFSET) ? LATER : FIRST;
	return off + ip.ihl * 4;
}

static __always_inline int read_v6(void *ctx, load_fn load, __u32 off, struct packet *packet)
{
	struct ipv6_header ip;
	struct extension ext;

	if (load(ctx, off, &ip, sizeof(ip)) || bpf_ntohl(ip.version_class_label) >> 28 != 6)
		return -1;
	packet->src.addr = ip.src;
	packet->dst.addr = ip.dst;
	off += sizeof(ip);
	__u8 next = ip.next;
	/* Unrolled, as below: kernel 6.1 refuses a loop that is entered in its middle; compilers make such. */
#pragma unroll
	for (int i = 0; i <= MAX_EXTENSIONS; i++) {
		packet->proto = next;
		if (!is_extension(next))
			return off;
		if (i == MAX_EXTENSIONS || load(ctx, off, &ext, sizeof(ext)))
			break;
		if (next == NEXT_FRAGMENT) {
			off += 8;
			/* Neither offset nor more to come: as good as no header. RFC 6946. */
			if (ext.fragment & bpf_htons(FRAGMENT_V6)) {
				packet->fragment = ext.fragment & bpf_htons(FRAGMENT_V6_OFFSET) ? LATER : FIRST;
				/* All that a later fragment says, so all that is asked of the first. */
				packet->proto = ext.next;
				return off;
			}
		} else if (next == NEXT_AUTHENTICATION) {
			off += (ext.len + 2) * 4;
		} else {
			off += (ext.len + 1) * 8;
		}
		next = ext.next;
	}
	return -1;
}

/*
 * Reads the headers from the IP header at `off` up to what the packet carries. Gives the offset of that,
 * below zero if there is nothing.
 */
static __always_inline int read_ip(void *ctx, load_fn load, __u32 off, __u8 kind, struct packet *packet)
{
	return kind == KIND_V4 ? read_v4(ctx, load, off, packet) : read_v6(ctx, load, off, packet);
}

/* The first word of an endpoint. */
static __always_inline __u32 head_of(__u32 proto, __u32 kind, __u32 port)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return proto | kind << 8 | port << 16;
#else
	return proto << 24 | kind << 16 | port;
#endif
}

static __always_inline int is_in(void *table, const struct endpoint *endpoint)
{
	return bpf_map_lookup_elem(table, endpoint) != 0;
}

/* With a port of choice. A copy, since kernel 6.1 takes no key from another function's stack. */
static __always_inline int is_in_with_port(void *table, const struct endpoint *endpoint, __be16 port)
{
	struct endpoint key = { .head = head_of(endpoint->proto, endpoint->kind, port), .addr = endpoint->addr };

	return is_in(table, &key);
}

static __always_inline int is_local(const struct endpoint *endpoint)
{
	struct endpoint key = { .kind = endpoint->kind & KIND_FAMILY, .addr = endpoint->addr };

	return is_in(&locals, &key);
}

static __always_inline int has_prefix(const struct packet *packet, __be16 port)
{
	struct prefix key = {
		.bits = 8 * sizeof(struct endpoint),
		.first = { .head = head_of(packet->proto, packet->dst.kind, port), .addr = packet->dst.addr },
	};

	return bpf_map_lookup_elem(&prefixes, &key) != 0;
}

/* A function of its own for the verifier's sake, as below. */
__attribute__((noinline)) int xvs_is_ruled(struct packet *packet, struct rule *rule)
{
	if (!packet || !rule)
		return 0;
	__u16 sport = bpf_ntohs(packet->src.port), dport = bpf_ntohs(packet->dst.port);

	if (rule->proto != packet->proto || rule->kind != (packet->dst.kind & KIND_FAMILY))
		return 0;
	if (!(packet->dst.kind & KIND_FRAGMENT) && (dport < rule->dport_min || dport > rule->dport_max ||
						sport < rule->sport_min || sport > rule->sport_max))
		return 0;
	return is_within(&packet->dst.addr, &rule->dst, &rule->dst_mask) &&
	       is_within(&packet->src.addr, &rule->src, &rule->src_mask);
}

static __always_inline int has_rule(struct packet *packet, __u64 in_force)
{
#pragma unroll
	for (__u32 i = 0; i < MAX_RULES; i++) {
		__u32 index = i;

		/* The lowest are in use first. */
		if (!(in_force >> i))
			return 0;
		if (!(in_force >> i & 1))
			continue;
		struct rule *rule = bpf_map_lookup_elem(&rules, &index);
		if (rule && xvs_is_ruled(packet, rule))
			return 1;
	}
	return 0;
}

/*
 * Whether anything but an exact entry in `services` makes the packet the balancer's. Not static, so that
 * the verifier looks at it once, and not once for every way to get here.
 */
__attribute__((noinline)) int xvs_matches(struct packet *packet)
{
	__u32 zero = 0;

	if (!packet)
		return 0;
	struct features *has = bpf_map_lookup_elem(&features, &zero);
	if (!has)
		return 0;
	__u32 flags = has->flags;
	/* Has no port that could be another than any. */
	__u8 fragment = packet->dst.kind & KIND_FRAGMENT;

	if ((flags & HAS_ANY_PORT) && !fragment && is_in_with_port(&services, &packet->dst, 0))
		return 1;
	if ((flags & HAS_PREFIXES) && has_prefix(packet, packet->dst.port))
		return 1;
	if ((flags & HAS_ANY_PORT_PREFIXES) && !fragment && has_prefix(packet, 0))
		return 1;
	if (has->rules && has_rule(packet, has->rules))
		return 1;
	if (((flags & HAS_RETURNS) && is_in_with_port(&returns, &packet->src, packet->src.port)) ||
	    ((flags & HAS_ANY_PORT_RETURNS) && !fragment && is_in_with_port(&returns, &packet->src, 0)))
		return !is_local(&packet->dst);
	return 0;
}

/* Most packets need no more than the first look-up. */
static __always_inline int is_flow(struct packet *packet)
{
	return is_in(&services, &packet->dst) || xvs_matches(packet);
}

static __always_inline int is_error_type(__u8 kind, __u8 type)
{
	if (kind == KIND_V6)
		return type >= ICMPV6_DEST_UNREACH && type <= ICMPV6_PARAMETERPROB;
	return type == ICMP_DEST_UNREACH || type == ICMP_SOURCE_QUENCH || type == ICMP_TIME_EXCEEDED ||
	       type == ICMP_PARAMETERPROB;
}

/* The ICMP message at `off`, which `packet` carries. */
static __always_inline int is_our_error(void *ctx, load_fn load, __u32 off, const struct packet *packet)
{
	struct icmp_error error;
	struct packet quoted = {};
	__be16 ports[2] = {};
	__u8 kind = packet->dst.kind;

	if (load(ctx, off, &error, sizeof(error)) || !is_error_type(kind, error.type))
		return 0;
	int at = read_ip(ctx, load, off + sizeof(error), kind, &quoted);
	/* The error goes to whom the quoted packet came from; anything else is a forgery or not ours. */
	if (at < 0 || quoted.fragment == LATER || !is_same(&quoted.src.addr, &packet->dst.addr))
		return 0;
	if (is_balanced(quoted.proto) && load(ctx, at, ports, sizeof(ports)))
		return 0;
	struct packet answer = { .src = quoted.dst, .dst = quoted.src, .proto = quoted.proto };
	answer.src.head = head_of(quoted.proto, kind, ports[1]);
	answer.dst.head = head_of(quoted.proto, kind, ports[0]);
	if (is_balanced(quoted.proto) && is_flow(&answer))
		return 1;
	return is_in(&tunnels, &answer.src);
}

/* Functions of their own for the verifier's sake, as above. */
__attribute__((noinline)) int xvs_error_xdp(struct xdp_md *ctx, __u32 off, struct packet *packet)
{
	return packet ? is_our_error(ctx, load_xdp, off, packet) : 0;
}

__attribute__((noinline)) int xvs_error_skb(struct __sk_buff *ctx, __u32 off, struct packet *packet)
{
	return packet ? is_our_error(ctx, load_skb, off, packet) : 0;
}

static __always_inline int is_ours_ip(void *ctx, load_fn load, __u32 off, __u8 kind)
{
	struct packet packet = {};
	__be16 ports[2] = {};
	int at = read_ip(ctx, load, off, kind, &packet);

	if (at < 0)
		return 0;
	if (is_balanced(packet.proto)) {
		if (packet.fragment != WHOLE)
			kind |= KIND_FRAGMENT;
		else if (load(ctx, at, ports, sizeof(ports)))
			return 0;
		packet.src.head = head_of(packet.proto, kind, ports[0]);
		packet.dst.head = head_of(packet.proto, kind, ports[1]);
		return is_flow(&packet);
	}
	if (packet.proto != (kind == KIND_V4 ? IPPROTO_ICMP : NEXT_ICMPV6) || packet.fragment != WHOLE)
		return 0;
	packet.dst.kind = kind;
	return load == load_xdp ? xvs_error_xdp(ctx, at, &packet) : xvs_error_skb(ctx, at, &packet);
}

static __always_inline int is_station(__u32 ifindex, const __u8 *mac)
{
	struct station key = { .ifindex = ifindex };

	__builtin_memcpy(key.mac, mac, ETH_ALEN);
	return bpf_map_lookup_elem(&stations, &key) != 0;
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
	if (eth.h_proto == bpf_htons(ETH_P_IP)) {
		if (!is_ours_ip(ctx, load, off, KIND_V4))
			return 0;
	} else if (eth.h_proto != bpf_htons(ETH_P_IPV6) || !is_ours_ip(ctx, load, off, KIND_V6)) {
		return 0;
	}
	/* Last, as it rarely says no: a switch that floods, or a promiscuous interface. */
	return is_station(ifindex, eth.h_dest);
}

static __always_inline void count(__u32 which)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &which);

	if (counter)
		*counter += 1;
}

#include "fast.bpf.h"

SEC("xdp")
int xvs_steer(struct xdp_md *ctx)
{
	int forwarded = forward(ctx);

	if (forwarded >= 0) {
		count(COUNT_FORWARDED);
		return forwarded;
	}
	if (!is_ours(ctx, load_xdp, ctx->ingress_ifindex)) {
		count(COUNT_PASSED);
		return XDP_PASS;
	}
	int action = bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_DROP);
	count(action == XDP_REDIRECT ? COUNT_STEERED : COUNT_DROPPED);
	return action;
}

SEC("tc")
int xvs_ingress(struct __sk_buff *skb)
{
	if (!is_ours(skb, load_skb, skb->ifindex)) {
		count(COUNT_PASSED);
		/* The next filter's turn, if there is one. */
		return TC_ACT_UNSPEC;
	}
	count(COUNT_STEERED);
	return TC_ACT_SHOT;
}

SEC("socket")
int xvs_tap(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &judges, 0);
	/* There is no judge. */
	return 0;
}

SEC("socket")
int xvs_judge(struct __sk_buff *skb)
{
	/* Bytes to copy up: all of them, or none. */
	return is_ours(skb, load_skb, skb->ifindex) ? -1 : 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
