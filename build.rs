//! Compiles the steering program for the kernel's BPF machine. The object is embedded in the binary
//! (`sys::bpf`), so nothing is needed beside it at run time.
//!
//! The program is also where keys and values of its maps are defined: their types in Rust are written
//! here from what the compiler says of them in the object (BTF, the kernel's type format), and the
//! constants from its preprocessor.

use std::{env, fmt::Write as _, fs, path::PathBuf, process::Command};

/// The program, the object that `sys::bpf` embeds from `OUT_DIR`, and the types for `sys::steer`.
const SOURCE: &str = "src/sys/steer.bpf.c";
/// What it includes of ours.
const HEADER: &str = "src/sys/fast.bpf.h";
const OBJECT: &str = "steer.bpf.o";
const TYPES: &str = "steer_types.rs";

/// Structures of the program that are keys or values of maps, or parts of these.
const STRUCTS: &[&str] = &[
    "addr",
    "endpoint",
    "prefix",
    "rule",
    "features",
    "station",
    "flow",
    "flow_group",
    "target",
    "hop",
    "settings",
    "traffic",
    "filter",
];

/// Constants of the program that Rust needs, with the type that they have there.
const CONSTANTS: &[(&str, &str)] = &[
    ("ASSURED", "u8"),
    ("COUNT_DROPPED", "u32"),
    ("COUNT_FORWARDED", "u32"),
    ("COUNT_PASSED", "u32"),
    ("COUNT_STEERED", "u32"),
    ("FLOW_CLAIMED", "u32"),
    ("FLOW_NONE", "u32"),
    ("FLOW_PLACES", "u32"),
    ("FLOW_V4", "u32"),
    ("FLOW_V6", "u32"),
    ("HAS_ANY_PORT", "u32"),
    ("HAS_ANY_PORT_PREFIXES", "u32"),
    ("HAS_ANY_PORT_RETURNS", "u32"),
    ("HAS_PREFIXES", "u32"),
    ("HAS_RETURNS", "u32"),
    ("KIND_FRAGMENT", "u8"),
    ("KIND_V4", "u8"),
    ("KIND_V6", "u8"),
    ("LAYOUT", "u32"),
    ("MAX_RULES", "usize"),
    ("METHOD_DR", "u8"),
    ("METHOD_GRE", "u8"),
    ("METHOD_GUE", "u8"),
    ("METHOD_IPIP", "u8"),
    ("METHOD_NAT", "u8"),
    ("OUTER_V4", "u8"),
    ("OUTER_V6", "u8"),
    ("PMTU_DISC", "u32"),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed={HEADER}");
    println!("cargo::rerun-if-env-changed=CLANG");
    if let Err(problem) = build() {
        println!("cargo::error={problem}");
    }
}

fn build() -> Result<(), String> {
    let folder = PathBuf::from(var("OUT_DIR")?);
    let object = folder.join(OBJECT);
    compile(&["-c", SOURCE, "-o", &object.to_string_lossy()])?;
    let defines = compile(&["-E", "-dM", SOURCE, "-o", "-"])?;
    let object = fs::read(&object).map_err(|e| format!("{}: {e}", object.display()))?;
    let types = types(&object, &defines).map_err(|problem| format!("{SOURCE}: {problem}"))?;
    let path = folder.join(TYPES);
    fs::write(&path, types).map_err(|e| format!("{}: {e}", path.display()))
}

/// Runs the compiler on the program; what it wrote.
fn compile(what: &[&str]) -> Result<String, String> {
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
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
        .args(what)
        .output()
        .map_err(|e| {
            format!(
                "cannot run `{clang}`, which compiles {SOURCE}: {e}. Install clang (Debian: \
                 apt-get install clang), or name one in the environment variable CLANG"
            )
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    // One line a message: cargo shows nothing after the first line break.
    let said = String::from_utf8_lossy(&output.stderr).replace('\n', " | ");
    Err(format!("`{clang}` could not compile {SOURCE}: {said}"))
}

fn var(name: &str) -> Result<String, String> {
    env::var(name).map_err(|e| format!("{name}: {e}"))
}

/// The Rust text of [`STRUCTS`] and [`CONSTANTS`].
fn types(object: &[u8], defines: &str) -> Result<String, String> {
    let types = Btf::of(object)?;
    let mut text = String::new();
    let mut write = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    for name in STRUCTS {
        let rust = camel_case(name);
        let id = types.find(name)?;
        let mut members = Vec::new();
        types.members(id, 0, &mut members)?;
        let size = types.size(id)?;
        write(format!(
            "/// `struct {name}` of `steer.bpf.c`.\n#[repr(C)]\n\
             #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]\npub(super) struct {rust} {{"
        ));
        let mut end = 0;
        for member in &members {
            if member.offset != end {
                return Err(format!("struct {name} has a hole before `{}`", member.name));
            }
            end += types.size(member.id)?;
            write(format!(
                "    pub(super) {}: {},",
                member.name,
                types.rust(member.id)?
            ));
        }
        if end != size {
            return Err(format!("struct {name} has a hole at its end"));
        }
        write("}".to_owned());
        for Member { name, offset, .. } in members {
            write(format!(
                "const _: () = assert!(std::mem::offset_of!({rust}, {name}) == {offset});"
            ));
        }
        write(format!(
            "const _: () = assert!(size_of::<{rust}>() == {size});\n\
             // SAFETY: members of its kind, without holes: the offsets were compared.\n\
             unsafe impl crate::sys::bpf::Plain for {rust} {{}}"
        ));
    }
    for (name, kind) in CONSTANTS {
        let value = defines
            .lines()
            .find_map(|line| {
                line.strip_prefix("#define ")?
                    .strip_prefix(name)?
                    .strip_prefix(' ')
            })
            .ok_or_else(|| format!("there is no constant {name}"))?;
        write(format!(
            "/// `{name}` of `steer.bpf.c`.\npub(super) const {name}: {kind} = {value};"
        ));
    }
    Ok(text)
}

fn camel_case(name: &str) -> String {
    name.split('_')
        .map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_uppercase() + rest
        })
        .collect()
}

/// Kinds of BTF types (`Documentation/bpf/btf.rst` of the kernel), as far as they occur in maps.
const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const TYPEDEF: u32 = 8;

/// The types of an object.
struct Btf {
    types: Vec<Type>,
}

struct Type {
    name: String,
    kind: u32,
    /// The size in bytes, or the number of another type.
    size_or_type: u32,
    members: Vec<Member>,
    /// Of an array: the number of its element's type, and how many elements.
    array: (u32, u32),
}

/// Of a structure; the offset in bytes.
#[derive(Clone)]
struct Member {
    name: String,
    id: u32,
    offset: u32,
}

impl Btf {
    fn of(object: &[u8]) -> Result<Self, String> {
        let bytes = Bytes { bytes: object };
        let section = bytes.section(".BTF")?;
        let header = section.word(4)? as usize;
        let part = |at: usize| -> Result<Bytes<'_>, String> {
            section.part(
                header + section.word(at)? as usize,
                section.word(at + 4)? as usize,
            )
        };
        let (types, names) = (part(8)?, part(16)?);
        let mut found = vec![Type {
            name: "void".to_owned(),
            kind: 0,
            size_or_type: 0,
            members: Vec::new(),
            array: (0, 0),
        }];
        let mut at = 0;
        while at < types.bytes.len() {
            let info = types.word(at + 4)?;
            let (kind, count) = (info >> 24 & 0x1f, info as usize & 0xffff);
            let mut this = Type {
                name: names.name(types.word(at)?)?,
                kind,
                size_or_type: types.word(at + 8)?,
                members: Vec::new(),
                array: (0, 0),
            };
            at += 12;
            // What follows, in bytes, a kind: once, or for each that is counted.
            let (once, each) = match kind {
                INT | 14 | 17 => (4, 0),
                ARRAY => {
                    this.array = (types.word(at)?, types.word(at + 8)?);
                    (12, 0)
                }
                STRUCT | UNION => {
                    for member in 0..count {
                        let at = at + 12 * member;
                        this.members.push(Member {
                            name: names.name(types.word(at)?)?,
                            id: types.word(at + 4)?,
                            // Bit fields have more in it, and are told by their size being wrong.
                            offset: types.word(at + 8)? / 8,
                        });
                    }
                    (0, 12)
                }
                15 | 19 => (0, 12),
                6 | 13 => (0, 8),
                _ => (0, 0),
            };
            at += once + each * count;
            found.push(this);
        }
        Ok(Self { types: found })
    }

    fn get(&self, id: u32) -> Result<&Type, String> {
        let found = self.types.get(id as usize);
        found.ok_or_else(|| format!("its types name a type {id} that there is not"))
    }

    fn find(&self, name: &str) -> Result<u32, String> {
        let is_it = |this: &Type| this.kind == STRUCT && this.name == name;
        let found = self.types.iter().position(is_it);
        found
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| format!("there is no struct {name} in a map"))
    }

    /// The members of a structure. Those of a nameless one in it are its own, and of a union's only
    /// the first is: the others are views of the same bytes.
    fn members(&self, id: u32, base: u32, all: &mut Vec<Member>) -> Result<(), String> {
        let this = self.get(id)?;
        let count = if this.kind == UNION {
            1
        } else {
            this.members.len()
        };
        for member in &this.members[..count] {
            let offset = base + member.offset;
            if member.name.is_empty() {
                self.members(member.id, offset, all)?;
            } else {
                all.push(Member {
                    offset,
                    ..member.clone()
                });
            }
        }
        Ok(())
    }

    fn size(&self, id: u32) -> Result<u32, String> {
        let this = self.get(id)?;
        match this.kind {
            INT | STRUCT | UNION => Ok(this.size_or_type),
            TYPEDEF => self.size(this.size_or_type),
            ARRAY => Ok(self.size(this.array.0)? * this.array.1),
            kind => Err(format!(
                "`{}` is of a kind {kind} that maps cannot have",
                this.name
            )),
        }
    }

    /// The name of the type in Rust. What is in network order is bytes, so that nobody calculates with it.
    fn rust(&self, id: u32) -> Result<String, String> {
        let this = self.get(id)?;
        let mut name = String::new();
        match (this.kind, this.name.as_str()) {
            (TYPEDEF, "__be16") => name.push_str("[u8; 2]"),
            (TYPEDEF, "__be32") => name.push_str("[u8; 4]"),
            (TYPEDEF, "__u8" | "__u16" | "__u32" | "__u64") => name.push_str(&this.name[2..]),
            (STRUCT, known) if STRUCTS.contains(&known) => name.push_str(&camel_case(known)),
            (ARRAY, _) => {
                let (element, count) = this.array;
                let _ = write!(name, "[{}; {count}]", self.rust(element)?);
            }
            (_, other) => return Err(format!("a map's member cannot be of the type `{other}`")),
        }
        Ok(name)
    }
}

/// Bytes of the object, read in the byte order of the target.
#[derive(Clone, Copy)]
struct Bytes<'a> {
    bytes: &'a [u8],
}

impl<'a> Bytes<'a> {
    fn part(self, from: usize, len: usize) -> Result<Self, String> {
        let end = from.checked_add(len);
        let bytes = end.and_then(|end| self.bytes.get(from..end));
        bytes
            .map(|bytes| Bytes { bytes })
            .ok_or_else(|| "its object is cut short".to_owned())
    }

    /// A number of `len` bytes.
    fn number(self, at: usize, len: usize) -> Result<usize, String> {
        let bytes = self.part(at, len)?.bytes.iter();
        let add = |sum: usize, byte: &u8| sum << 8 | usize::from(*byte);
        Ok(if var("CARGO_CFG_TARGET_ENDIAN")? == "big" {
            bytes.fold(0, add)
        } else {
            bytes.rev().fold(0, add)
        })
    }

    fn word(self, at: usize) -> Result<u32, String> {
        u32::try_from(self.number(at, 4)?).map_err(|e| e.to_string())
    }

    /// The text at `at`, up to its zero.
    fn name(self, at: u32) -> Result<String, String> {
        let rest = self.bytes.get(at as usize..).unwrap_or_default();
        let name = rest.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8(name.to_vec()).map_err(|e| e.to_string())
    }

    /// A section of the ELF file that these bytes are, by its name.
    fn section(self, name: &str) -> Result<Self, String> {
        // Elf64_Ehdr: e_shoff, e_shentsize, e_shnum, e_shstrndx; Elf64_Shdr: sh_name, sh_offset, sh_size.
        let (table, size) = (self.number(40, 8)?, self.number(58, 2)?);
        let (count, names) = (self.number(60, 2)?, self.number(62, 2)?);
        let section = |index: usize| {
            let at = table + index * size;
            self.part(self.number(at + 24, 8)?, self.number(at + 32, 8)?)
        };
        let names = section(names)?;
        for index in 0..count {
            if names.name(self.word(table + index * size)?)? == name {
                return section(index);
            }
        }
        Err(format!("its object has no section {name}"))
    }
}
