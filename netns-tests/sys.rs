//! The system layer below control, against the kernel: network namespaces, real processes.
//!
//! Needs root, iproute2 and setpriv: `cargo test --test sys [-- NAME…]`. There is no libtest
//! here, because some tests start this very program again and fork it, which a program with
//! threads must not do.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

#[path = "sys/common.rs"]
mod common;
#[path = "sys/guardian.rs"]
mod guardian;
#[path = "sys/local_link.rs"]
mod local_link;
#[path = "sys/memory.rs"]
mod memory;
#[path = "sys/netlink.rs"]
mod netlink;
#[path = "sys/sockets.rs"]
mod sockets;
#[path = "sys/xdp_features.rs"]
mod xdp_features;

/// A test by name.
type Test = (&'static str, fn());

/// Names of functions with the functions.
macro_rules! tests {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$((stringify!($name), $module::$name as fn())),*]
    };
}

const TESTS: &[Test] = tests![
    netlink::addresses_come_and_go_once,
    netlink::an_address_is_made_as_the_configuration_says,
    netlink::an_ipv6_address_is_made_as_keepalived_makes_it,
    netlink::without_privilege_the_error_says_what_is_missing,
    netlink::the_hosts_own_address_is_not_a_vip,
    netlink::secondaries_stay_when_they_are_promoted,
    netlink::routes_are_followed_as_the_kernel_would,
    netlink::a_neighbour_is_resolved_on_request,
    netlink::a_probe_checks_again_and_leaves_permanent_entries_alone,
    netlink::link_changes_are_heard,
    netlink::a_port_that_leaves_its_bridge_is_still_there,
    netlink::address_and_route_changes_are_heard,
    netlink::a_storm_that_nobody_reads_is_one_overflow,
    netlink::a_view_that_follows_a_storm_is_right_in_the_end,
    xdp_features::what_xdp_can_do_changes_with_the_other_end_and_is_told,
    xdp_features::what_xdp_can_do_is_known_of_interfaces_that_come_and_go,
    xdp_features::what_xdp_can_do_is_right_after_notifications_were_lost,
    sockets::adverts_reach_the_group_and_not_the_sender,
    sockets::adverts_reach_a_unicast_peer,
    sockets::a_vrrp_socket_survives_its_interface_going_down,
    sockets::a_gratuitous_arp_moves_the_vip,
    sockets::a_link_socket_receives_nothing,
    sockets::a_virtual_router_is_locked_within_its_namespace,
    local_link::what_is_sent_to_it_reaches_the_host_and_is_answered_by_the_hosts_own_routes,
    local_link::what_is_not_for_this_host_goes_no_further,
    local_link::neither_end_has_an_address_or_says_anything,
    local_link::a_pair_is_removed_when_nobody_owns_it,
    guardian::a_killed_engine_is_undone_within_milliseconds,
    guardian::a_large_engine_is_undone_as_well,
    guardian::an_engine_that_says_goodbye_is_left_in_peace,
    guardian::an_engine_that_forgets_goodbye_is_undone,
    guardian::a_socket_that_somebody_inherited_does_not_hide_the_death,
    guardian::signals_to_the_group_do_not_reach_it,
    guardian::it_keeps_nothing_of_the_engine_open,
    guardian::it_is_not_started_beside_threads,
    memory::what_is_not_used_is_not_locked,
    guardian::a_lock_file_is_free_when_its_owner_is_killed,
];

fn main() -> ExitCode {
    if let Ok(role) = env::var(common::ROLE) {
        return common::play(&role);
    }
    common::sweep();
    let wanted: Vec<String> = env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let chosen: Vec<&Test> = TESTS
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part)))
        .collect();
    let failed = chosen.iter().filter(|test| !passes(test)).count();
    println!("\n{} passed, {failed} failed", chosen.len() - failed);
    if failed == 0 && !chosen.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs one test. A program that is missing, or privilege, fails it: nothing is skipped silently.
fn passes((name, test): &Test) -> bool {
    let outcome = catch_unwind(AssertUnwindSafe(test));
    println!(
        "{name} ... {}",
        if outcome.is_ok() { "ok" } else { "FAILED" }
    );
    outcome.is_ok()
}
