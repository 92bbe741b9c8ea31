//! What kernel and user space share is laid out alike on both sides: the host's own answers (`ringfence_abi::layout`)
//! against those of the built objects, by their BTF.

use ringfence_abi::layout::{self, Layout};
use ringfence_btf::Btf;
use std::collections::BTreeSet;

const OBJECTS: [&[u8]; 2] = [
    include_bytes!(concat!(env!("OUT_DIR"), "/ringfence.bpf.o")),
    include_bytes!(concat!(env!("OUT_DIR"), "/ringfence-direct-reads.bpf.o")),
];

fn objects() -> [Btf; 2] {
    OBJECTS.map(|object| Btf::from_elf(object).expect("the object has BTF"))
}

#[test]
fn size_alignment_and_every_field_are_the_same_on_both_targets() {
    let objects = objects();
    for (btf, layout) in objects.iter().flat_map(|btf| layout::all().map(move |layout| (btf, layout))) {
        let name = name(layout.path);
        let theirs = btf.members(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let theirs: Vec<_> = theirs.iter().map(|m| (m.name.as_str(), u64::from(m.offset), m.size)).collect();
        let ours: Vec<_> = layout.fields.iter().map(|f| (f.name, f.offset as u64, f.size as u64)).collect();
        assert_eq!(theirs, ours, "{name}: left: the object; right: the host");
        let size = btf.size(name).expect("it has members") as usize;
        assert_eq!(size, layout.size, "{name}: its size; left: the object; right: the host");
        assert_eq!(theirs.iter().map(|(_, _, size)| size).sum::<u64>(), size as u64, "{name}: padding in the object");
        assert_eq!(alignment(btf, &layout), layout.align, "{name}: its alignment; left: the object; right: the host");
    }
}

#[test]
fn maps_hold_nothing_of_abi_that_is_not_compared() {
    let [btf, _] = objects();
    let compared: BTreeSet<String> = layout::all().map(|layout| encoded(layout.path)).collect();
    let mut mentioned = BTreeSet::new();
    // A map's type names the types of its keys and values: `HashMap<ringfence_abi::slot::CgroupName, u32>`.
    let names = btf.struct_names();
    for map in names.iter().filter(|name| MAPS.iter().any(|map| name.starts_with(&format!("{map}{LESS}")))) {
        assert!(map.ends_with(GREATER), "{map} is cut: the linker shortens long names, so give its types shorter ones");
        mentioned.extend(of_abi(map).map(str::to_owned));
    }
    assert!(mentioned.contains(&encoded("ringfence_abi::slot::CgroupName")), "maps are not found: {mentioned:?}");
    let unknown: Vec<_> = mentioned.difference(&compared).collect();
    assert!(unknown.is_empty(), "keys or values of maps that `all_shared!` does not name: {unknown:?}");
}

/// Kinds of map with types of keys and values.
const MAPS: [&str; 6] = ["Array", "HashMap", "LpmTrie", "LruHashMap", "PerCpuArray", "PerCpuHashMap"];

// The linker writes what a C name cannot hold as `_HEX_`.
const LESS: &str = "_3C_";
const GREATER: &str = "_3E_";
const COLONS: &str = "_3A__3A_";

fn encoded(path: &str) -> String {
    path.replace("::", COLONS)
}

/// The paths of this crate's types in the name of a generic one, as the linker writes them.
fn of_abi(generic: &str) -> impl Iterator<Item = &str> {
    const CRATE: &str = "ringfence_abi_3A__3A_";
    generic.match_indices(CRATE).map(|(start, _)| {
        let path = &generic[start..];
        let module = path[CRATE.len()..].find(COLONS).expect("a type of a module") + CRATE.len() + COLONS.len();
        let end = path[module..].find('_').expect("what ends the type is written as _HEX_") + module;
        &path[..end]
    })
}

/// Where the compiler of the object puts the struct behind one byte.
fn alignment(btf: &Btf, layout: &Layout) -> usize {
    let aligned = format!("Aligned{LESS}{}{GREATER}", encoded(layout.path));
    btf.offset(&aligned, "value").unwrap_or_else(|error| panic!("{}: {error}", layout.path)) as usize
}

fn name(path: &str) -> &str {
    path.rsplit("::").next().unwrap_or(path)
}
