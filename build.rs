//! Compiles the steering program for the kernel's BPF machine. The object is embedded in the binary
//! (`sys::bpf`), so nothing is needed beside it at run time.

use std::{env, path::PathBuf, process::Command};

/// The program, and the object that `sys::bpf` embeds from `OUT_DIR`.
const SOURCE: &str = "src/sys/steer.bpf.c";
const OBJECT: &str = "steer.bpf.o";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CLANG");
    if let Err(problem) = compile() {
        println!("cargo::error={problem}");
    }
}

fn compile() -> Result<(), String> {
    let var = |name: &str| env::var(name).map_err(|e| format!("{name}: {e}"));
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let object = PathBuf::from(var("OUT_DIR")?).join(OBJECT);
    let target = match var("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb",
        _ => "bpfel",
    };
    let output = Command::new(&clang)
        .args([
            "-target", target, "-O2", "-g", "-Wall", "-Wextra", "-Werror",
        ])
        // The headers of the very libbpf that loads the object; no libbpf-dev is needed.
        .arg(format!("-I{}", var("DEP_BPF_INCLUDE")?))
        // Debian and its kin keep <asm/types.h> below the multiarch name; elsewhere this is no folder.
        .arg(format!(
            "-I/usr/include/{}-linux-gnu",
            var("CARGO_CFG_TARGET_ARCH")?
        ))
        .args(["-c", SOURCE, "-o"])
        .arg(&object)
        .output()
        .map_err(|e| {
            format!(
                "cannot run `{clang}`, which compiles {SOURCE}: {e}. Install clang (Debian: \
                 apt-get install clang), or name one in the environment variable CLANG"
            )
        })?;
    if output.status.success() {
        return Ok(());
    }
    // One line a message: cargo shows nothing after the first line break.
    let said = String::from_utf8_lossy(&output.stderr).replace('\n', " | ");
    Err(format!("`{clang}` could not compile {SOURCE}: {said}"))
}
