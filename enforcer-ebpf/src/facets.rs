//! Facet look-ups: from an observed value to the lines that it satisfies.
//!
//! Each function narrows `s.hit`. Look-ups that no remaining line cares about are spared.

use crate::{
    kernel::{self, copy_words, get, put, zero_words},
    path,
    scratch::{self, FileFacets, FileKey, Scratch},
};
use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap},
};
use ringfence_abi::{
    BYTE_FACET_ENTRIES, ByteFacet, ByteFacetVectors, Class, DestinationKey, Entry, FACET_DEFAULTS_ENTRIES, Facet,
    FacetDefaults, KEY_HEAD_BITS, KeyHead, NAME, NAME_STARTS_ENTRIES, NameKey, NameStarts, NumberKey, PATH_PREFIX,
    PathKey, PathPrefixKey, Role, Vector, byte_facet_index, facet_defaults_index, flag, name_starts_index,
};

#[map]
static BYTE_FACETS: Array<ByteFacetVectors> = Array::with_max_entries(BYTE_FACET_ENTRIES, 0);
#[map]
static FACET_DEFAULTS: Array<FacetDefaults> = Array::with_max_entries(FACET_DEFAULTS_ENTRIES, 0);
#[map]
static PATHS: HashMap<PathKey, Entry> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map]
static PATH_PREFIXES: LpmTrie<PathPrefixKey, Entry> = LpmTrie::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map]
static NAMES: HashMap<NameKey, Entry> = HashMap::with_max_entries(32_768, BPF_F_NO_PREALLOC);
#[map]
static NAME_PREFIXES: LpmTrie<NameKey, Entry> = LpmTrie::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map]
static DESTINATIONS: LpmTrie<DestinationKey, Entry> = LpmTrie::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map]
static NAME_STARTS: Array<NameStarts> = Array::with_max_entries(NAME_STARTS_ENTRIES, 0);
#[map]
static NUMBERS: HashMap<NumberKey, Entry> = HashMap::with_max_entries(8_192, BPF_F_NO_PREALLOC);

/// What paths and names satisfy, by a path's identity. Never stale: see `path.rs`.
#[map]
static REMEMBERED: LruHashMap<FileKey, FileFacets> = LruHashMap::with_max_entries(16_384, 0);

#[inline(always)]
pub fn any(v: &Vector) -> bool {
    v[0] | v[1] | v[2] | v[3] != 0
}

#[inline(always)]
fn and(a: &mut Vector, b: &Vector) {
    a[0] &= b[0];
    a[1] &= b[1];
    a[2] &= b[2];
    a[3] &= b[3];
}

#[inline(always)]
fn or(a: &mut Vector, b: &Vector) {
    a[0] |= b[0];
    a[1] |= b[1];
    a[2] |= b[2];
    a[3] |= b[3];
}

#[inline(always)]
fn and_not(a: &mut Vector, b: &Vector) {
    a[0] &= !b[0];
    a[1] &= !b[1];
    a[2] &= !b[2];
    a[3] &= !b[3];
}

#[inline(always)]
pub fn intersects(a: &Vector, b: &Vector) -> bool {
    (a[0] & b[0]) | (a[1] & b[1]) | (a[2] & b[2]) | (a[3] & b[3]) != 0
}

#[inline(always)]
fn head(s: &Scratch, class: u8, role: u8) -> KeyHead {
    KeyHead { generation: s.event.header.generation as u8, class, role, zero: 0 }
}

/// Of all facets of a class. Fetched once for whatever is asked of them together: the kernel writes a look-up out in place
/// of the call, and copies the program, and eighty bytes that it notes of each instruction, for every one of them.
#[inline(always)]
pub fn defaults(s: &Scratch, class: Class) -> Option<&'static FacetDefaults> {
    FACET_DEFAULTS.get(facet_defaults_index(s.event.header.generation, class))
}

/// Begins a facet: nothing is excluded, and satisfied are the lines that an unlisted value satisfies.
#[inline(always)]
pub fn begin(s: &mut Scratch, defaults: &FacetDefaults, facet: Facet) {
    zero_words(&mut s.clear);
    copy_words(&mut s.set, &defaults[facet as usize].default);
}

/// Whether a line that is still possible looks at the facet.
#[inline(always)]
pub fn cares(s: &Scratch, defaults: &FacetDefaults, facet: Facet) -> bool {
    intersects(&s.hit, &defaults[facet as usize].care)
}

/// Drops the lines that look at the facet.
#[inline(always)]
pub fn drop_caring(s: &mut Scratch, class: Class, facet: Facet) {
    if let Some(defaults) = defaults(s, class) {
        and_not(&mut s.hit, &defaults[facet as usize].care);
    }
}

/// Keeps only the lines that look at one of two facets.
#[inline(always)]
pub fn keep_caring(s: &mut Scratch, class: Class, one: Facet, other: Facet) {
    zero_words(&mut s.set);
    if let Some(defaults) = defaults(s, class) {
        or(&mut s.set, &defaults[one as usize].care);
        or(&mut s.set, &defaults[other as usize].care);
    }
    and(&mut s.hit, &s.set);
}

/// Drops the lines whose name was found, unless they look at the facet.
#[inline(always)]
pub fn drop_named(s: &mut Scratch, class: Class, unless: Facet) {
    copy_words(&mut s.set, &s.found.name);
    if let Some(defaults) = defaults(s, class) {
        and_not(&mut s.set, &defaults[unless as usize].care);
    }
    and_not(&mut s.hit, &s.set);
}

/// Narrows by a facet of one byte.
#[inline(always)]
pub fn byte(s: &mut Scratch, class: Class, facet: ByteFacet, value: u8) {
    if let Some(vectors) = BYTE_FACETS.get(byte_facet_index(s.event.header.generation, class, facet)) {
        and(&mut s.hit, &vectors[value as usize]);
    }
}

/// Narrows by all flags.
#[inline(always)]
pub fn flags(s: &mut Scratch, class: Class) {
    home_flags(s, class);
    other_flags(s, class);
}

/// Narrows by the flags that tell where the object lives: the first eight.
#[inline(always)]
pub fn home_flags(s: &mut Scratch, class: Class) {
    let flags = get(&raw const s.event.header.flags);
    byte(s, class, ByteFacet::Flags0, flags as u8);
}

/// Narrows by the other flags.
#[inline(always)]
pub fn other_flags(s: &mut Scratch, class: Class) {
    // Read back: else the compiler knows which flags there are and drops the mask, and the verifier does not know it.
    let flags = get(&raw const s.event.header.flags);
    byte(s, class, ByteFacet::Flags1, (flags >> 8) as u8);
    byte(s, class, ByteFacet::Flags2, (flags >> 16) as u8);
}

/// Narrows by the path and the name of the file that is the object.
#[inline(always)]
pub fn object(s: &mut Scratch, class: Class, defaults: &FacetDefaults) {
    if cares_for_file(s, defaults, Role::Object) {
        let (dentry, mnt, sb) = (s.object.dentry, s.object.mnt, s.object.sb);
        file(s, class, defaults, Role::Object, dentry, mnt, sb);
    }
}

/// The same of any file, seen as `role`. For who has asked [`cares_for_file`].
#[inline(always)]
pub fn file(s: &mut Scratch, class: Class, defaults: &FacetDefaults, role: Role, dentry: u64, mnt: u64, sb: u64) {
    if let Some(remembered) = remembered(s, class, role, dentry, mnt, sb) {
        and(&mut s.hit, &remembered.path);
        and(&mut s.hit, &remembered.name);
        return;
    }
    find(s, class, defaults, role, dentry);
    found(s);
}

#[inline(always)]
const fn facets_of(role: Role) -> (Facet, Facet) {
    match role {
        Role::Exe => (Facet::ExePath, Facet::ExeName),
        Role::Parent => (Facet::ParentPath, Facet::ParentName),
        _ => (Facet::ObjectPath, Facet::ObjectName),
    }
}

/// Narrows an event without an object: lines that ask for a path or a name are not about it.
#[inline(always)]
pub fn without_object(s: &mut Scratch, defaults: &FacetDefaults) {
    and(&mut s.hit, &defaults[Facet::ObjectPath as usize].default);
    and(&mut s.hit, &defaults[Facet::ObjectName as usize].default);
}

/// What the object's file satisfies, into `s.found`. False: no remaining line cares.
#[inline(always)]
pub fn look_up_object(s: &mut Scratch, class: Class, defaults: &FacetDefaults, dentry: u64, mnt: u64, sb: u64) -> bool {
    if !cares_for_file(s, defaults, Role::Object) {
        return false;
    }
    match remembered(s, class, Role::Object, dentry, mnt, sb) {
        Some(remembered) => {
            copy_words(&mut s.found.path, &remembered.path);
            copy_words(&mut s.found.name, &remembered.name);
        }
        None => find(s, class, defaults, Role::Object, dentry),
    }
    true
}

#[inline(always)]
pub fn cares_for_file(s: &Scratch, defaults: &FacetDefaults, role: Role) -> bool {
    let (path, name) = facets_of(role);
    cares(s, defaults, path) || cares(s, defaults, name)
}

/// What is remembered of the file with this path; its key stays in `s.remembered`, its measured path in `s.walk`.
#[inline(always)]
fn remembered(
    s: &mut Scratch,
    class: Class,
    role: Role,
    dentry: u64,
    mnt: u64,
    sb: u64,
) -> Option<&'static FileFacets> {
    path::measure(s, dentry, mnt, sb);
    if s.walk.too_deep != 0 {
        s.event.header.flags |= flag::PATH_TRUNCATED;
    }
    s.remembered = FileKey {
        dentry,
        mnt: if s.walk.inside != 0 { 0 } else { mnt },
        fingerprint: s.walk.fingerprint,
        head: head(s, class as u8, role as u8),
        zero: 0,
    };
    // SAFETY: read at once. An entry that is replaced meanwhile is replaced by one of the same path.
    unsafe { REMEMBERED.get(&s.remembered).map(|found| &*core::ptr::from_ref(found)) }
}

/// Looks up the path that was measured, and its name, into `s.found`, and remembers that.
#[inline(always)]
fn find(s: &mut Scratch, class: Class, defaults: &FacetDefaults, role: Role, dentry: u64) {
    path::write(s);
    if s.walk.too_deep != 0 {
        // Only the end of the path is known: it satisfies no line that asks for a path.
        kernel::zero(&mut s.path);
    }
    path_vector(s, class, defaults, role);
    path::leaf(s, dentry);
    name_vector(s, class, defaults, role);
    let _ = REMEMBERED.insert(&s.remembered, &s.found, 0);
}

/// Narrows by the string path in `s.path` and its name in `s.name_key`.
#[inline(always)]
pub fn string(s: &mut Scratch, class: Class, defaults: &FacetDefaults) {
    if cares(s, defaults, Facet::ObjectPath) {
        path_vector(s, class, defaults, Role::Object);
        and(&mut s.hit, &s.found.path);
    }
    if cares(s, defaults, Facet::ObjectName) {
        name_vector(s, class, defaults, Role::Object);
        and(&mut s.hit, &s.found.name);
    }
}

/// `s.path` against exact paths and prefixes, into `s.found.path`.
#[inline(always)]
fn path_vector(s: &mut Scratch, class: Class, defaults: &FacetDefaults, role: Role) {
    let (facet, _) = facets_of(role);
    begin(s, defaults, facet);
    s.path_key.head = head(s, class as u8, role as u8);
    rf_path(s.index);
}

/// The table is in `s.path_key.head`, the default in `s.set`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_path(index: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 1 };
    kernel::copy_bytes(&mut s.path_key.path, s.path.as_ptr());
    // SAFETY: entries do not change while their generation is in force.
    if let Some(e) = unsafe { PATHS.get(&s.path_key) } {
        or(&mut s.set, &e.set);
        or(&mut s.clear, &e.clear);
    }
    s.path_prefix.prefix_len = KEY_HEAD_BITS + PATH_PREFIX as u32 * 8;
    s.path_prefix.data.head = s.path_key.head;
    kernel::copy_bytes(&mut s.path_prefix.data.path, s.path.as_ptr());
    if let Some(e) = PATH_PREFIXES.get(&s.path_prefix) {
        or(&mut s.set, &e.set);
        or(&mut s.clear, &e.clear);
    }
    copy_words(&mut s.found.path, &s.set);
    and_not(&mut s.found.path, &s.clear);
    0
}

/// `s.name_key.name` against exact names and prefixes, into `s.found.name`.
#[inline(always)]
fn name_vector(s: &mut Scratch, class: Class, defaults: &FacetDefaults, role: Role) {
    let (_, facet) = facets_of(role);
    begin(s, defaults, facet);
    add_name(s, class as u8, role as u8);
    copy_words(&mut s.found.name, &s.set);
    and_not(&mut s.found.name, &s.clear);
}

/// Adds what `s.name_key.name` satisfies to `s.set` and `s.clear`.
#[inline(always)]
fn add_name(s: &mut Scratch, class: u8, role: u8) {
    s.name_key.head = head(s, class, role);
    rf_name(s.index);
}

/// The table is in `s.name_key.head`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_name(index: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 1 };
    if !is_listed(s) {
        return 0;
    }
    // SAFETY: as in `path_vector`.
    if let Some(e) = unsafe { NAMES.get(&s.name_key) } {
        or(&mut s.set, &e.set);
        or(&mut s.clear, &e.clear);
    }
    s.name_prefix.prefix_len = KEY_HEAD_BITS + NAME as u32 * 8;
    s.name_prefix.data.head = s.name_key.head;
    kernel::copy_bytes(&mut s.name_prefix.data.name, s.name_key.name.as_ptr());
    if let Some(e) = NAME_PREFIXES.get(&s.name_prefix) {
        or(&mut s.set, &e.set);
        or(&mut s.clear, &e.clear);
    }
    0
}

/// Whether the table in `s.name_key.head` has any name with the first two bytes of the one there.
#[inline(always)]
fn is_listed(s: &Scratch) -> bool {
    let (head, name) = (s.name_key.head, &s.name_key.name);
    let start = name[0] as usize | (name[1] as usize) << 8;
    match NAME_STARTS.get(name_starts_index(s.event.header.generation, head.class, head.role)) {
        Some(starts) => starts[(start >> 6) & (starts.len() - 1)] >> (start & 63) & 1 != 0,
        None => true,
    }
}

/// Adds the lines that ask for the name in `s.name_key` to `s.found.name`: another name of the same object. (What
/// another name would exclude counts only for the file's own.)
#[inline(always)]
pub fn add_object_name(s: &mut Scratch, class: u8) {
    let head = head(s, class, Role::Object as u8);
    s.name_key.head = head;
    if !is_listed(s) {
        return;
    }
    // SAFETY: as in `path_vector`.
    if let Some(e) = unsafe { NAMES.get(&s.name_key) } {
        or(&mut s.found.name, &e.set);
    }
    s.name_prefix.prefix_len = KEY_HEAD_BITS + NAME as u32 * 8;
    s.name_prefix.data.head = head;
    kernel::copy_bytes(&mut s.name_prefix.data.name, s.name_key.name.as_ptr());
    if let Some(e) = NAME_PREFIXES.get(&s.name_prefix) {
        or(&mut s.found.name, &e.set);
    }
}

/// Narrows by what was found for the object's path and names.
#[inline(always)]
pub fn found(s: &mut Scratch) {
    and(&mut s.hit, &s.found.path);
    and(&mut s.hit, &s.found.name);
}

/// One value of the list: the name in `s.name_key`.
#[inline(always)]
pub fn add_to_list(s: &mut Scratch, class: u8, role: u8) {
    add_name(s, class, role);
}

/// Arguments that were cut, before [`end_list`] and [`found`]: lines that may yet find what they ask for stay possible,
/// and `s.certain` tells those that have found it. `names`: another name of the object is among the arguments, and that
/// one too may be still to come (`name_open`).
#[inline(always)]
pub fn leave_open(s: &mut Scratch, class: Class, names: bool, name_open: bool) {
    copy_words(&mut s.certain, &s.set);
    and_not(&mut s.certain, &s.clear);
    if names {
        and(&mut s.certain, &s.found.name);
    }
    let Some(defaults) = defaults(s, class) else { return };
    or(&mut s.set, &defaults[Facet::Arg as usize].care);
    if name_open {
        or(&mut s.found.name, &defaults[Facet::ObjectName as usize].care);
    }
}

/// Tells the lines that are satisfied, which stay, from the candidates, which go to `s.open`.
#[inline(always)]
pub fn set_candidates_apart(s: &mut Scratch) {
    copy_words(&mut s.open, &s.hit);
    and_not(&mut s.open, &s.certain);
    and(&mut s.hit, &s.certain);
}

/// Narrows by the list.
#[inline(always)]
pub fn end_list(s: &mut Scratch) {
    and(&mut s.hit, &s.set);
    and_not(&mut s.hit, &s.clear);
}

/// Narrows by the address in the event.
#[inline(always)]
pub fn destination(s: &mut Scratch, class: Class, defaults: &FacetDefaults) {
    if !cares(s, defaults, Facet::Destination) {
        return;
    }
    begin(s, defaults, Facet::Destination);
    s.destination.prefix_len = KEY_HEAD_BITS + 128;
    s.destination.data.head = head(s, class as u8, Facet::Destination as u8);
    s.destination.data.address = s.event.header.address;
    if let Some(e) = DESTINATIONS.get(&s.destination) {
        or(&mut s.set, &e.set);
        or(&mut s.clear, &e.clear);
    }
    end_list(s);
}

/// Narrows by a number: the operation's own, or the port.
#[inline(always)]
pub fn number(s: &mut Scratch, class: Class, defaults: &FacetDefaults, facet: Facet, number: u64) {
    if !cares(s, defaults, facet) {
        return;
    }
    begin(s, defaults, facet);
    let key = NumberKey { head: head(s, class as u8, facet as u8), zero: 0, number };
    // SAFETY: as in `path_vector`.
    if let Some(e) = unsafe { NUMBERS.get(&key) } {
        or(&mut s.set, &e.set);
        or(&mut s.clear, &e.clear);
    }
    end_list(s);
}

/// Appends a byte to the name in `s.name_key`; what does not fit is left out.
#[inline(always)]
pub fn push_name_byte(s: &mut Scratch, byte: u8) {
    let at = get(&raw const s.len);
    if at < NAME as u64 {
        // SAFETY: masked below 64, and the key is followed by the rest of the scratch.
        put(unsafe { s.name_key.name.as_mut_ptr().add((at & 63) as usize) }, byte);
        put(&raw mut s.len, at + 1);
    }
}
