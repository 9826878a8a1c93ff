//! Keys, values and constants of the steering program's maps, as `steer.bpf.c` defines them: written by
//! `build.rs`.

include!(concat!(env!("OUT_DIR"), "/steer_types.rs"));
