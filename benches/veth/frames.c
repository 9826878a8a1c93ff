/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Runs one of the programs of `frames.bpf.c`:
 *
 *   frames OBJECT source|sink|hop INTERFACE [NAME=VALUE ...]
 *
 * The names are those of `struct plan`; `out` is the interface that packets leave by, if it is another. Sink and hop
 * are attached; the source runs over live frames, as fast as the processor that this runs on. To each line on standard
 * input it answers how many packets there were so far, and when that was, in nanoseconds of CLOCK_MONOTONIC. It ends,
 * and with it the program, at the end of standard input.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_ether.h>
#include <linux/types.h>

#include "frames.h"

/* Frames that are in flight together. */
#define BATCH 64
/*
 * Packets of one call, which a signal ends. Each call waits twice for all processors to have let go of a program: with
 * 65,536 packets the source stands still for half of the time.
 */
#define REPEAT (1 << 30)

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static void mac(const char *text, __u8 *bytes)
{
	if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &bytes[0], &bytes[1], &bytes[2], &bytes[3], &bytes[4],
		   &bytes[5]) != 6) {
		errno = EINVAL;
		fail(text);
	}
}

static void set(struct plan *plan, char *argument)
{
	char *value = strchr(argument, '=');

	if (!value) {
		errno = EINVAL;
		fail(argument);
	}
	*value++ = 0;
	if (!strcmp(argument, "to_mac"))
		mac(value, plan->to_mac);
	else if (!strcmp(argument, "from_mac"))
		mac(value, plan->from_mac);
	else if (!strcmp(argument, "out"))
		plan->ifindex = if_nametoindex(value);
	else if (!strcmp(argument, "other"))
		plan->other = inet_addr(value);
	else if (!strcmp(argument, "other_port"))
		plan->other_port = htons(atoi(value));
	else if (!strcmp(argument, "answers"))
		plan->answers = atoi(value);
	else if (!strcmp(argument, "protocol"))
		plan->protocol = atoi(value);
	else if (!strcmp(argument, "flows"))
		plan->flows = strtoul(value, NULL, 10);
	else if (!strcmp(argument, "fresh_every"))
		plan->fresh_every = strtoul(value, NULL, 10);
	else if (!strcmp(argument, "fresh_from"))
		plan->fresh_from = strtoull(value, NULL, 10);
	else {
		errno = EINVAL;
		fail(argument);
	}
}

static void *send_without_end(void *program)
{
	char frame[ETH_ZLEN] = {0};

	for (;;) {
		LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame, .data_size_in = sizeof(frame), .repeat = REPEAT,
			    .flags = BPF_F_TEST_XDP_LIVE_FRAMES, .batch_size = BATCH);
		if (bpf_prog_test_run_opts(*(int *)program, &run))
			fail("BPF_PROG_TEST_RUN");
	}
	return NULL;
}

int main(int count, char **arguments)
{
	int cpus = libbpf_num_possible_cpus();
	struct plan plan = {.flows = 1};
	struct tally *tallies;
	struct bpf_program *program;
	struct bpf_object *object;
	struct bpf_map *map;
	pthread_t sender;
	int interface, fd, tallies_fd;
	size_t size;
	char line[64];

	if (count < 4 || cpus < 1) {
		fprintf(stderr, "usage: %s OBJECT source|sink|hop INTERFACE [NAME=VALUE ...]\n", arguments[0]);
		return 2;
	}
	interface = if_nametoindex(arguments[3]);
	if (!interface)
		fail(arguments[3]);
	plan.ifindex = interface;
	for (int i = 4; i < count; i++)
		set(&plan, arguments[i]);

	object = bpf_object__open(arguments[1]);
	if (!object)
		fail(arguments[1]);
	bpf_object__for_each_program(program, object)
		bpf_program__set_autoload(program, !strcmp(bpf_program__name(program), arguments[2]));
	map = bpf_object__find_map_by_name(object, ".rodata");
	if (!map || !bpf_map__initial_value(map, &size) || size != sizeof(plan))
		fail("the plan's place");
	if (bpf_map__set_initial_value(map, &plan, sizeof(plan)) || bpf_object__load(object))
		fail("load");
	tallies_fd = bpf_object__find_map_fd_by_name(object, "tallies");
	program = bpf_object__find_program_by_name(object, arguments[2]);
	if (!program)
		fail(arguments[2]);
	fd = bpf_program__fd(program);
	if (strcmp(arguments[2], "source")) {
		if (!bpf_program__attach_xdp(program, interface))
			fail("attach");
	} else if (pthread_create(&sender, NULL, send_without_end, &fd)) {
		fail("a thread");
	}

	tallies = calloc(cpus, sizeof(*tallies));
	while (tallies && fgets(line, sizeof(line), stdin)) {
		struct timespec now;
		__u64 packets = 0;
		__u32 zero = 0;

		if (bpf_map_lookup_elem(tallies_fd, &zero, tallies))
			fail("the tallies");
		for (int i = 0; i < cpus; i++)
			packets += tallies[i].packets;
		clock_gettime(CLOCK_MONOTONIC, &now);
		printf("%llu %llu\n", (unsigned long long)packets, now.tv_sec * 1000000000ULL + now.tv_nsec);
		fflush(stdout);
	}
	return 0;
}
