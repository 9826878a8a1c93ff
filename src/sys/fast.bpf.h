/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The fast path: packets of established flows are forwarded here, as userspace has decided.
 *
 * Policy stays there. A worker that has forwarded a flow's packets writes a record of it; here is only a
 * look-up, a rewrite by index, counters, a redirect. Whatever is not plain goes up as before: SYN, FIN, RST,
 * fragments, IP options, extension headers, VLAN tags, TTL 1, what is too large for its way, checksums that are
 * wrong or that a sender left to a card.
 *
 *   flows     by the client's address and port: one cache line a flow, both directions. All of it is mapped into
 *             userspace: a worker begins and ends a flow, and reads when its last packet came, without a system call.
 *   targets   by real server: what changes for all of its flows is one store, however many there are.
 *   hops      by next hop, likewise.
 *   traffic   by processor and real server.
 *
 * Not a hash map of the kernel's: that costs a flow three dependent misses, of memory in small pages, where this
 * has one. Measured in a virtual machine at 65,536 flows: 400 ns and more against 60.
 *
 * `balance::rewrite` does the same in userspace; a test compares the two packet by packet.
 */

/* Bits of each filter in front of the flows; power of two. */
#define FILTER_BITS 65536
/* Where IPv4's and IPv6's headers begin. */
#define NETWORK 14
/* What stands between an outer IP header and the packet at most: UDP and GUE. Less than any packet of a flow. */
#define MAX_BETWEEN 12

/* The states of a flow; claimed: it is being written. */
#define FLOW_NONE 0
#define FLOW_CLAIMED 1
#define FLOW_V4 4
#define FLOW_V6 6
/* Flows that may have one hash, each in one of these places; a power of two. */
#define FLOW_PLACES 4
/* Packets after which it is believed that there is a flow: `balance::conntable`. */
#define ASSURED 9
/* target.method. */
#define METHOD_DR 1
#define METHOD_NAT 2
#define METHOD_IPIP 3
#define METHOD_GRE 4
#define METHOD_GUE 5
/* target.outer: the family of the outer header. */
#define OUTER_V4 4
#define OUTER_V6 6
/* settings.flags. */
#define PMTU_DISC 1
/* Which version of these structures it is: who takes over from another does without its flows. */
#define LAYOUT 1

/* A flow and what was decided about it. */
struct flow {
	/*
	 * As a number: protocol | state << 8 | bits of the hash << 16 | turn << 24. The state is written last when a flow
	 * begins, first when it ends. The turn counts the flows of one place: who has read one is not to mix it with the
	 * next.
	 */
	__u32 head;
	__be16 cport, vport;
	struct addr client, vip;
	/* When a packet was last seen, in 0.1 s of CLOCK_MONOTONIC; written here. */
	__u32 seen;
	/* Index in `targets`, and which holder of the place is meant. */
	__u32 real;
	__u32 epoch;
	/* Of answers: index in `hops`, good while `settings.ways` is `ways`. */
	__u32 hop;
	__u16 ways;
	/* Packets that were forwarded here, up to ASSURED; written here. */
	__u8 packets;
	/* The number of the worker that has its connection, for who takes over. */
	__u8 worker;
	/* Of tunnels: what spreads flows over queues and paths. */
	__u32 spread;
};

/* Where flows of one hash are. */
struct flow_group {
	struct flow flow[FLOW_PLACES];
};

/* A real server. */
struct target {
	/* Which holder of the place it is; 0: its flows go up. */
	__u32 epoch;
	/* Index in `hops`. */
	__u32 hop;
	/* The largest packet of a tunnel's path, outer header included, if it is known to be less than the hop's. */
	__u16 mtu;
	/* 0: the one that the client asked for. */
	__be16 port;
	__u8 method;
	__u8 outer;
	/* Of GUE: where the tunnel ends. */
	__be16 tunnel_port;
	/* The real server, and of tunnels this host's address. */
	struct addr addr;
	struct addr local;
	/* Of tunnels: the bits of the source's last word that are the flow's. */
	__be32 spread_mask;
	/* For who takes over, kept while the epoch is 0: whose it is, and the epoch of its holder. */
	__u32 service[2];
	__u32 holder;
};

/* How a frame gets to a neighbour. */
struct hop {
	/* 0: not now. */
	__u32 ifindex;
	/* The largest packet, IP header included. */
	__u32 mtu;
	__u8 dst[ETH_ALEN];
	__u8 src[ETH_ALEN];
	__u32 zero;
};

struct settings {
	/* Drawn at start, so that nobody outside can aim at a place. The second is odd. */
	__u64 seed[2];
	/*
	 * Groups that are in use, a power of two, less one: they follow the number of flows, since memory that is dense is
	 * fast. And those that were in use before, until every flow has moved.
	 */
	__u32 mask, former_mask;
	/* Numbers the routes to clients. 16 bits. */
	__u32 ways;
	/* Places of one processor in `traffic`. */
	__u32 reals;
	__u32 flags;
	/* For who takes over: LAYOUT. */
	__u32 layout;
};

/*
 * By processor, then by real server. Two more rows are userspace's, for who takes over: what else went through it, and,
 * in the place of packets, its connections.
 */
struct traffic {
	__u64 packets, bytes;
	__u64 packets_out, bytes_out;
};

/* Whether any flow goes to an address, and whether any comes back from one, by a hash of it. */
struct filter {
	__u8 vips[FILTER_BITS / 8];
	__u8 reals[FILTER_BITS / 8];
};

/* Sizes are userspace's to say before it loads this. */
#define MAPPED(name, value_type)                        \
	struct {                                        \
		__uint(type, BPF_MAP_TYPE_ARRAY);       \
		__uint(map_flags, BPF_F_MMAPABLE);      \
		__uint(max_entries, 1);                 \
		__type(key, __u32);                     \
		__type(value, value_type);              \
	} name SEC(".maps")

MAPPED(flows, struct flow_group);
MAPPED(targets, struct target);
MAPPED(hops, struct hop);
MAPPED(traffic, struct traffic);
MAPPED(settings, struct settings);
MAPPED(filter, struct filter);

/* The address of the interface that this instance is on. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct station);
} own SEC(".maps");

/* The first words of a TCP header, up to its checksum: RFC 9293 section 3.1. */
struct tcp_front {
	__be16 ports[2];
	__be32 seq, ack;
	__u8 offset;
	__u8 flags;
	__be16 window;
	__u16 check;
};

struct udp_header {
	__be16 ports[2];
	__be16 length;
	__u16 check;
};

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* The one's complement sum of the 16-bit words of a sum of wider ones. RFC 1071. */
static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* A checksum after what it covers has changed by `change`: sums of ~old + new. RFC 1624, equation 3. */
static __always_inline __u16 changed(__u16 check, __u64 change)
{
	return ~fold((__u64)(__u16)~check + change);
}

static __always_inline __u64 change_of(__u32 old, __u32 new)
{
	return (__u64)(__u32)~old + new;
}

static __always_inline __u64 change_of_port(__be16 old, __be16 new)
{
	return (__u64)(__u16)~old + new;
}

static __always_inline __u64 change_of_addr(const struct addr *old, const struct addr *new)
{
	return change_of(old->word[0], new->word[0]) + change_of(old->word[1], new->word[1]) +
	       change_of(old->word[2], new->word[2]) + change_of(old->word[3], new->word[3]);
}

static __always_inline __u64 sum_of(const struct addr *addr)
{
	return (__u64)addr->word[0] + addr->word[1] + addr->word[2] + addr->word[3];
}

static __always_inline __u32 folded(const struct addr *addr)
{
	return addr->word[0] ^ addr->word[1] ^ addr->word[2] ^ addr->word[3];
}

static __always_inline __u32 bit_of(__u32 folded)
{
	return folded * 0x9e3779b1 >> 16;
}

static __always_inline __u32 is_marked(const __u8 *bits, __u32 bit)
{
	return bits[bit >> 3 & (FILTER_BITS / 8 - 1)] >> (bit & 7) & 1;
}

#define TO_VIP 1
#define FROM_REAL 2

/* What a packet between two addresses may be: most of no concern of ours end here. */
static __always_inline __u32 marks_of(__u32 src, __u32 dst)
{
	__u32 zero = 0;
	struct filter *marks = bpf_map_lookup_elem(&filter, &zero);

	if (!marks)
		return 0;
	return is_marked(marks->vips, bit_of(dst)) | is_marked(marks->reals, bit_of(src)) << 1;
}

/* Where the flows of a client's address and port are. */
static __always_inline __u64 hash4(const struct settings *set, __be32 addr, __be16 port, __u8 proto)
{
	__u64 hash = ((__u64)addr << 32 | (__u32)port << 8 | proto) ^ set->seed[0];

	hash *= set->seed[1];
	hash ^= hash >> 32;
	return hash * 0xd6e8feb86659fd93;
}

static __always_inline __u64 hash6(const struct settings *set, const struct addr *addr, __be16 port, __u8 proto)
{
	__u64 hash = ((__u64)addr->word[0] << 32 | addr->word[1]) ^ set->seed[0];

	hash *= set->seed[1];
	hash ^= hash >> 32;
	hash = (hash ^ ((__u64)addr->word[2] << 32 | addr->word[3])) * set->seed[1];
	hash ^= hash >> 32;
	hash = (hash ^ ((__u32)port << 8 | proto)) * set->seed[1];
	hash ^= hash >> 32;
	return hash * 0xd6e8feb86659fd93;
}

/* A flow's packet, and what was decided about it. */
struct course {
	struct settings *settings;
	struct flow *flow;
	struct target *target;
	struct hop *hop;
	/* Of an answer: the virtual server. */
	struct addr vip;
	__be16 vport;
	/* Whether the flow's real server sent it. */
	__u16 answer;
	__u32 spread;
	__u32 real;
	/* Its length from the IP header on. */
	__u32 length;
};

/* An end of a packet. Of IPv4 only `v4` counts. */
struct end {
	struct addr *addr;
	__be32 v4;
	__be16 port;
};

static __always_inline int is_at(__u8 state, const struct addr *addr, const struct end *end)
{
	return state == FLOW_V4 ? addr->word[3] == end->v4 : is_same(addr, end->addr);
}

/* Whether the flow is the one between these; if `answer`, `other` is its real server, else its virtual one. */
static __always_inline int is_between(struct flow *flow, __u8 state, const struct end *client,
				      const struct end *other, __u32 answer, struct course *course)
{
	if (flow->cport != client->port || !is_at(state, &flow->client, client))
		return 0;
	if (!answer && (flow->vport != other->port || !is_at(state, &flow->vip, other)))
		return 0;
	__u32 real = flow->real;
	struct target *target = bpf_map_lookup_elem(&targets, &real);
	if (!target || !target->epoch || flow->epoch != target->epoch)
		return 0;
	__u32 hop = target->hop;
	if (answer) {
		__be16 vport = flow->vport;

		if (target->method != METHOD_NAT || flow->ways != course->settings->ways ||
		    (target->port ? target->port : vport) != other->port || !is_at(state, &target->addr, other))
			return 0;
		course->vport = vport;
		if (state == FLOW_V4)
			course->vip.word[3] = flow->vip.word[3];
		else
			course->vip = flow->vip;
		hop = flow->hop;
	}
	course->hop = bpf_map_lookup_elem(&hops, &hop);
	course->flow = flow;
	course->target = target;
	course->spread = flow->spread;
	course->real = real;
	course->answer = answer;
	return course->hop && course->hop->ifindex;
}

/* Finds the flow of a packet in one group, of whose places `first` is its own: most flows are there, and no other is touched. */
static __always_inline int find_in(__u32 place, __u32 first, __u32 wanted, struct course *course,
				   const struct end *client, const struct end *other, __u32 answer)
{
	struct flow_group *group = bpf_map_lookup_elem(&flows, &place);

	if (!group)
		return 0;
#pragma unroll
	for (int i = 0; i < FLOW_PLACES; i++) {
		struct flow *flow = &group->flow[(first + i) & (FLOW_PLACES - 1)];
		__u32 head = *(volatile __u32 *)&flow->head;

		if ((head & 0xffffff) != wanted || !is_between(flow, wanted >> 8, client, other, answer, course))
			continue;
		/* It may have become another's meanwhile. */
		return *(volatile __u32 *)&flow->head == head;
	}
	return 0;
}

/* Finds the flow of a packet; `kind` is its protocol and the state. */
static __always_inline int find_flow(__u64 hash, __u32 kind, struct course *course, const struct end *client,
				     const struct end *other, __u32 answer)
{
	struct settings *set = course->settings;
	__u32 wanted = kind | (__u32)(hash >> 56) << 16;
	__u32 mask = set->mask, former = set->former_mask, first = hash >> 54;

	if (find_in(hash >> 24 & mask, first, wanted, course, client, other, answer))
		return 1;
	return mask != former && find_in(hash >> 24 & former, first, wanted, course, client, other, answer);
}

/*
 * Nanoseconds / 100,000,000. Not by the processor's division of 64 bits: by 2^20 and by 2^32 / (10^8 / 2^20), which is a
 * tick behind after half a year and fits for nine.
 */
static __always_inline __u32 tick_of(__u64 nanoseconds)
{
	return (nanoseconds >> 20) * 45035996 >> 32;
}

static __always_inline void note(const struct course *course)
{
	/* Not reading the clock's hardware, as `bpf_ktime_get_ns` would: a tick is 0.1 s. */
	__u32 tick = tick_of(bpf_ktime_get_coarse_ns());
	__u32 reals = course->settings->reals;

	/* A line that does not change need not be written back. */
	if (course->flow->seen != tick)
		course->flow->seen = tick;
	if (course->flow->packets < ASSURED)
		course->flow->packets++;
	if (course->real >= reals)
		return;
	__u32 place = bpf_get_smp_processor_id() * reals + course->real;
	struct traffic *traffic_of = bpf_map_lookup_elem(&traffic, &place);
	if (!traffic_of)
		return;
	if (course->answer) {
		traffic_of->packets_out += 1;
		traffic_of->bytes_out += course->length;
	} else {
		traffic_of->packets += 1;
		traffic_of->bytes += course->length;
	}
}

/*
 * Also back where the packet came from, not by XDP_TX: veth puts such a frame into the ring of its other end, and wakes
 * that only if it has a program of its own (Linux 6.18, veth_xdp_flush), so that it waits there for the next one.
 */
static __always_inline int leave(const struct hop *hop)
{
	return bpf_redirect(hop->ifindex, 0);
}

static __always_inline void set_stations(struct ethhdr *eth, const struct hop *hop)
{
	__builtin_memcpy(eth->h_dest, hop->dst, ETH_ALEN);
	__builtin_memcpy(eth->h_source, hop->src, ETH_ALEN);
}

/* Whether the frame is addressed to the interface itself. */
static __always_inline int is_own(const struct ethhdr *eth)
{
	__u32 zero = 0;
	struct station *station = bpf_map_lookup_elem(&own, &zero);

	return station && *(__u32 *)eth->h_dest == *(__u32 *)station->mac &&
	       *(__u16 *)(eth->h_dest + 4) == *(__u16 *)(station->mac + 4);
}

/* Outer DSCP and ECN: "congestion experienced" goes out as "capable". RFC 3168 section 9.1.1. */
static __always_inline __u8 outer_tos(__u8 inner)
{
	return (inner & 3) == 3 ? inner & ~1 : inner;
}

/* What an outer header takes from the packet, whose TTL is as it is to be. */
struct inner {
	__u32 length;
	__u8 tos, ttl;
	__u8 dont_fragment;
	__u8 proto;
	__be16 ether_type;
};

/*
 * Puts the packet into a tunnel. Its own header is as it is to be. Non-zero: there was no room.
 */
static __always_inline int encapsulate(struct xdp_md *ctx, const struct course *course, const struct inner *inner)
{
	struct target *target = course->target;
	/* The source's last word, in part the flow's own. */
	__be32 last = target->local.word[3] | (bpf_htonl(course->spread) & target->spread_mask);
	__u8 method = target->method, outer = target->outer;
	__u32 header = outer == OUTER_V4 ? sizeof(struct iphdr) : sizeof(struct ipv6_header);
	__u32 between = method == METHOD_GUE ? 12 : method == METHOD_GRE ? 4 : 0;
	__u8 proto = method == METHOD_GUE ? IPPROTO_UDP : method == METHOD_GRE ? IPPROTO_GRE : inner->proto;
	__u32 payload = between + inner->length;

	if (bpf_xdp_adjust_head(ctx, -(int)(header + between)))
		return -1;
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end)
		return -1;
	set_stations(eth, course->hop);
	void *next;
	if (outer == OUTER_V4) {
		struct iphdr *ip = data + sizeof(*eth);
		__be32 *word = (__be32 *)ip;
		__u32 id = 0;

		if ((void *)(ip + 1) + MAX_BETWEEN > end)
			return -1;
		eth->h_proto = bpf_htons(ETH_P_IP);
		if (!inner->dont_fragment)
			id = bpf_get_prandom_u32() & 0xffff;
		word[0] = bpf_htonl(0x45000000 | (__u32)outer_tos(inner->tos) << 16 | (header + payload));
		word[1] = bpf_htonl(id << 16 | (inner->dont_fragment ? 0x4000 : 0));
		word[2] = bpf_htonl((__u32)inner->ttl << 24 | (__u32)proto << 16);
		word[3] = last;
		word[4] = target->addr.word[3];
		ip->check = ~fold((__u64)word[0] + word[1] + word[2] + word[3] + word[4]);
		next = ip + 1;
	} else {
		struct ipv6_header *ip = data + sizeof(*eth);

		if ((void *)(ip + 1) + MAX_BETWEEN > end)
			return -1;
		eth->h_proto = bpf_htons(ETH_P_IPV6);
		ip->version_class_label = bpf_htonl(0x60000000 | (__u32)outer_tos(inner->tos) << 20);
		ip->payload_len = bpf_htons(payload);
		ip->next = proto;
		ip->hop_limit = inner->ttl;
		ip->src = target->local;
		ip->src.word[3] = last;
		ip->dst = target->addr;
		next = ip + 1;
	}
	if (method == METHOD_GRE) {
		__be16 *gre = next;

		gre[0] = 0;
		gre[1] = inner->ether_type;
	} else if (method == METHOD_GUE) {
		__be16 *udp = next;

		/* Of the range 32768 to 60998. */
		udp[0] = bpf_htons(32768 + (course->spread * 28231ULL >> 32));
		udp[1] = target->tunnel_port;
		udp[2] = bpf_htons(payload);
		udp[3] = 0;
		udp[4] = bpf_htons(inner->proto);
		udp[5] = 0;
	}
	return 0;
}

/* The same for a packet with so much padding behind it, which is no part of it. */
static __always_inline int put_into_tunnel(struct xdp_md *ctx, const struct course *course,
					   const struct inner *inner, int padding)
{
	if (padding > 0 && bpf_xdp_adjust_tail(ctx, -padding))
		return -1;
	return encapsulate(ctx, course, inner);
}

/* Whether a packet fits through its way, with what a tunnel puts in front of it. */
static __always_inline int fits(const struct course *course)
{
	struct target *target = course->target;
	__u32 length = course->length, mtu = course->hop->mtu;

	if (!course->answer && target->method >= METHOD_IPIP) {
		length += target->outer == OUTER_V4 ? sizeof(struct iphdr) : sizeof(struct ipv6_header);
		length += target->method == METHOD_GUE ? 12 : target->method == METHOD_GRE ? 4 : 0;
		if (target->mtu && target->mtu < mtu)
			mtu = target->mtu;
	}
	return length <= mtu;
}

/* Puts the change of an address and a port into the sum of a transport header. */
static __always_inline void put_sum(__u16 *check, __u8 proto, __u64 change)
{
	__u16 old = *check;

	if (proto == IPPROTO_TCP) {
		*check = changed(old, change);
	} else if (old) {
		__u16 new = changed(old, change);
		/* Zero would say that there is none. RFC 768. */
		*check = new ? new : 0xffff;
	}
}

/*
 * The transport header at `next`: whether it is plain. `pseudo` is the sum of the addresses; a checksum that is
 * just that of the pseudo-header was left to a card that there never was. Gives its place.
 */
static __always_inline __u16 *plain_transport(void *next, void *end, __u8 proto, __u32 length, __u64 pseudo)
{
	__u16 *check;

	if (proto == IPPROTO_TCP) {
		struct tcp_front *tcp = next;

		if ((void *)(tcp + 1) > end || length < 20)
			return 0;
		__u32 header = (tcp->offset >> 4) * 4;
		if (header < 20 || header > length)
			return 0;
		if ((tcp->flags & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK)) != TCP_ACK)
			return 0;
		check = &tcp->check;
	} else {
		struct udp_header *udp = next;

		if ((void *)(udp + 1) > end || length < 8)
			return 0;
		check = &udp->check;
		if (!*check)
			return check;
	}
	pseudo += bpf_htons(proto);
	pseudo += bpf_htons(length);
	return fold(pseudo) == *check ? 0 : check;
}

static __always_inline int is_fast_proto(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP;
}

/* Forwards an IPv4 packet, if it is one of a known flow. Below zero: it is for who comes next. */
static __always_inline int forward4(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + NETWORK;
	__be16 *ports = (__be16 *)(ip + 1);
	struct course course;

	if ((void *)(ports + 2) > end)
		return -1;
	__be32 *word = (__be32 *)ip;
	__u32 marks = marks_of(ip->saddr, ip->daddr);
	if (!marks)
		return -1;
	if ((word[0] & bpf_htonl(0xff000000)) != bpf_htonl(0x45000000) || ip->frag_off & bpf_htons(FRAGMENT) ||
	    ip->ttl <= 1 || !is_fast_proto(ip->protocol))
		return -1;
	course.length = bpf_ntohs(ip->tot_len);
	if (course.length < sizeof(*ip) || NETWORK + course.length > (__u64)(end - data))
		return -1;
	if (fold((__u64)word[0] + word[1] + word[2] + word[3] + word[4]) != 0xffff)
		return -1;
	__u8 proto = ip->protocol;
	__u16 *check = plain_transport(ip + 1, end, proto, course.length - sizeof(*ip), (__u64)ip->saddr + ip->daddr);
	__u32 zero = 0;
	course.settings = bpf_map_lookup_elem(&settings, &zero);
	if (!check || !course.settings || !is_own(eth))
		return -1;

	__u32 kind = proto | FLOW_V4 << 8;
	struct end from = { .v4 = ip->saddr, .port = ports[0] }, to = { .v4 = ip->daddr, .port = ports[1] };
	if (!(marks & TO_VIP && find_flow(hash4(course.settings, from.v4, from.port, proto), kind, &course,
					  &from, &to, 0)) &&
	    !(marks & FROM_REAL && find_flow(hash4(course.settings, to.v4, to.port, proto), kind, &course,
					     &to, &from, 1)))
		return -1;
	if (!fits(&course))
		return -1;

	struct target *target = course.target;
	__u64 change = 0;
	if (course.answer) {
		change = change_of(ip->saddr, course.vip.word[3]);
		ip->saddr = course.vip.word[3];
		put_sum(check, proto, change + change_of_port(ports[0], course.vport));
		ports[0] = course.vport;
	} else if (target->method == METHOD_NAT) {
		__be16 port = target->port ? target->port : ports[1];

		change = change_of(ip->daddr, target->addr.word[3]);
		ip->daddr = target->addr.word[3];
		put_sum(check, proto, change + change_of_port(ports[1], port));
		ports[1] = port;
	}
	/* The TTL is the first byte of its word of the sum. */
	__u16 old = *(__u16 *)&ip->ttl;
	ip->ttl--;
	change += change_of_port(old, *(__u16 *)&ip->ttl);
	ip->check = changed(ip->check, change);

	if (course.answer || target->method < METHOD_IPIP) {
		set_stations(eth, course.hop);
	} else {
		struct inner inner = {
			.length = course.length,
			.tos = ip->tos,
			.ttl = ip->ttl,
			.dont_fragment = course.settings->flags & PMTU_DISC && ip->frag_off & bpf_htons(0x4000),
			.proto = IPPROTO_IPIP,
			.ether_type = bpf_htons(ETH_P_IP),
		};
		int padding = end - data - NETWORK - course.length;

		if (put_into_tunnel(ctx, &course, &inner, padding))
			return XDP_DROP;
	}
	note(&course);
	return leave(course.hop);
}

/* The same for IPv6. */
static __always_inline int forward6(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct ipv6_header *ip = data + NETWORK;
	__be16 *ports = (__be16 *)(ip + 1);
	struct course course;

	if ((void *)(ports + 2) > end)
		return -1;
	__u32 marks = marks_of(folded(&ip->src), folded(&ip->dst));
	if (!marks)
		return -1;
	__u32 first = bpf_ntohl(ip->version_class_label);
	if (first >> 28 != 6 || ip->hop_limit <= 1 || !is_fast_proto(ip->next))
		return -1;
	__u32 payload = bpf_ntohs(ip->payload_len);
	course.length = sizeof(*ip) + payload;
	if (NETWORK + course.length > (__u64)(end - data))
		return -1;
	__u8 proto = ip->next;
	__u16 *check = plain_transport(ip + 1, end, proto, payload, sum_of(&ip->src) + sum_of(&ip->dst));
	__u32 zero = 0;
	course.settings = bpf_map_lookup_elem(&settings, &zero);
	if (!check || !course.settings || !is_own(eth))
		return -1;

	__u32 kind = proto | FLOW_V6 << 8;
	struct end from = { .addr = &ip->src, .port = ports[0] }, to = { .addr = &ip->dst, .port = ports[1] };
	if (!(marks & TO_VIP && find_flow(hash6(course.settings, from.addr, from.port, proto), kind, &course,
					  &from, &to, 0)) &&
	    !(marks & FROM_REAL && find_flow(hash6(course.settings, to.addr, to.port, proto), kind, &course,
					     &to, &from, 1)))
		return -1;
	if (!fits(&course))
		return -1;

	struct target *target = course.target;
	if (course.answer) {
		__u64 change = change_of_addr(&ip->src, &course.vip);

		ip->src = course.vip;
		put_sum(check, proto, change + change_of_port(ports[0], course.vport));
		ports[0] = course.vport;
	} else if (target->method == METHOD_NAT) {
		__be16 port = target->port ? target->port : ports[1];
		__u64 change = change_of_addr(&ip->dst, &target->addr);

		ip->dst = target->addr;
		put_sum(check, proto, change + change_of_port(ports[1], port));
		ports[1] = port;
	}
	ip->hop_limit--;

	if (course.answer || target->method < METHOD_IPIP) {
		set_stations(eth, course.hop);
	} else {
		struct inner inner = {
			.length = course.length,
			.tos = first >> 20,
			.ttl = ip->hop_limit,
			.proto = IPPROTO_IPV6,
			.ether_type = bpf_htons(ETH_P_IPV6),
		};
		int padding = end - data - NETWORK - course.length;

		if (put_into_tunnel(ctx, &course, &inner, padding))
			return XDP_DROP;
	}
	note(&course);
	return leave(course.hop);
}

/* Forwards a packet of a known flow. Below zero: it is for who comes next. */
static __always_inline int forward(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end)
		return -1;
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return forward4(ctx);
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		return forward6(ctx);
	return -1;
}
