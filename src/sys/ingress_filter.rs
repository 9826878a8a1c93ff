//! The tc ingress filter that keeps the balancer's packets from the host where AF_PACKET only copies
//! them. It is set by netlink, outlives the process like the XDP program, and is known by its name.

use std::{io, mem, os::fd::AsRawFd};

use libbpf_sys as bpf;

use super::{
    bpf::{Program, check, program_name, size_of_as},
    device::InterfaceSpec,
    open_error::OpenError,
    xdp_link::Attached,
};

/// The filter program's name in the kernel.
pub(super) const PROGRAM_NAME: &str = "xvs_ingress";

/// The filter's place: first, so that no other filter lets the packets in before.
const PRIORITY: u32 = 1;
/// The filter's number at that place: "xvs" in ASCII.
const HANDLE: u32 = 0x78_76_73;

/// Sets the filter, in place of one that a previous run left (in one step). The notes tell of that.
pub(super) fn attach(spec: &InterfaceSpec, program: &Program) -> Result<Attached, OpenError> {
    let refused = |e| OpenError::from_errno(&spec.name, "set the ingress filter", e);
    let mut hook = hook(spec);
    // SAFETY: `hook` says its size and is alive for the call.
    match check(unsafe { bpf::bpf_tc_hook_create(&mut hook) }) {
        Ok(_) => {}
        // Somebody made the clsact qdisc before: the hook is there, which is all we want.
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
        Err(e) => return Err(refused(e)),
    }
    let mut options = place();
    let mut attached = Attached {
        mode: None,
        took_over: false,
        notes: Vec::new(),
    };
    if leftover(spec)?.is_some() {
        options.flags = bpf::BPF_TC_F_REPLACE;
        attached.took_over = true;
        let note = "took over the ingress filter of a previous run";
        attached.notes.push(note.to_owned());
    }
    options.prog_fd = program.as_raw_fd();
    // SAFETY: `hook` and `options` say their sizes and are alive for the call; the program is loaded.
    check(unsafe { bpf::bpf_tc_attach(&hook, &mut options) }).map_err(refused)?;
    Ok(attached)
}

/// The number of our filter's program on `spec`'s interface, if it is there.
///
/// # Errors
/// [`OpenError::Foreign`] when our place is taken by somebody else.
pub(super) fn leftover(spec: &InterfaceSpec) -> Result<Option<u32>, OpenError> {
    let refused = |e| OpenError::from_errno(&spec.name, "ask for its ingress filter", e);
    let hook = hook(spec);
    let mut found = place();
    // SAFETY: `hook` and `found` say their sizes and are alive for the call.
    match check(unsafe { bpf::bpf_tc_query(&hook, &mut found) }) {
        Ok(_) => {}
        // No such filter; or no hook at all, which the kernel calls an invalid argument.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => return Ok(None),
        Err(e) => return Err(refused(e)),
    }
    let name = program_name(found.prog_id).map_err(refused)?;
    if name.as_deref() == Some(PROGRAM_NAME) {
        return Ok(Some(found.prog_id));
    }
    Err(OpenError::Foreign {
        interface: spec.name.clone(),
        found: format!(
            "the ingress filter {} (pref {PRIORITY}, handle {HANDLE:#x})",
            name.as_deref().unwrap_or("without a name")
        ),
        remedy: format!("tc filter del dev {} ingress pref {PRIORITY}", spec.name),
    })
}

/// Removes our filter. The empty clsact qdisc stays: it costs nothing and may be somebody else's.
pub(super) fn detach(spec: &InterfaceSpec) -> io::Result<()> {
    let hook = hook(spec);
    let options = place();
    // SAFETY: `hook` and `options` say their sizes and are alive for the call.
    match check(unsafe { bpf::bpf_tc_detach(&hook, &options) }) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other.map(drop),
    }
}

fn hook(spec: &InterfaceSpec) -> bpf::bpf_tc_hook {
    // SAFETY: the structure is plain integers, for which zero is a value.
    let mut hook: bpf::bpf_tc_hook = unsafe { mem::zeroed() };
    hook.sz = size_of_as(&hook);
    hook.ifindex = i32::try_from(spec.ifindex).unwrap_or(i32::MAX);
    hook.attach_point = bpf::BPF_TC_INGRESS;
    hook
}

fn place() -> bpf::bpf_tc_opts {
    // SAFETY: the structure is plain integers, for which zero is a value.
    let mut options: bpf::bpf_tc_opts = unsafe { mem::zeroed() };
    options.sz = size_of_as(&options);
    options.handle = HANDLE;
    options.priority = PRIORITY;
    options
}
