//! Every system call that the standard library has no safe form of, and all unsafe code.
//!
//! What is here is mechanism: it knows sockets, netlink and processes, and no policy of a load
//! balancer. Where a crate offers a safe call, that is used.

pub mod affinity;
mod bpf;
pub mod busy_poll;
pub mod clock;
pub mod daemon;
pub mod device;
pub mod guardian;
pub mod huge_pages;
mod ingress_filter;
pub mod instance_lock;
pub mod interface_conf;
pub mod limits;
pub mod link_socket;
pub mod local_link;
pub mod log_output;
pub mod monitor;
pub mod netlink;
pub mod netns;
pub mod notify;
pub mod open_error;
pub mod packet_socket;
pub mod poll;
pub mod prefetch;
pub mod random;
pub mod scheduling;
pub mod script;
pub mod signals;
mod sockopt;
pub mod steer;
pub mod umem;
pub mod users;
pub mod vrrp_socket;
pub mod waker;
pub mod xdp_link;
pub mod xsk;

/// What a call of the kernel that answers 0, or else has failed, says.
fn done(status: libc::c_int) -> std::io::Result<()> {
    if status == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}
