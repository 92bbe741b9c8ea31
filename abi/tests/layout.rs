//! Every struct of this crate is known to `layout::all`, so that none escapes the comparison with the built object.

use ringfence_abi::layout;
use std::{collections::BTreeSet, fs, path::Path};

/// Structs that the kernel side never sees.
const OUR_OWN: [&str; 3] = ["Field", "Layout", "Member"];
/// Stands before each struct to show its alignment.
const ALIGNED: &str = "Aligned";

#[test]
fn every_struct_is_named_in_all_shared() {
    let mut defined = BTreeSet::new();
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("src") {
        let path = file.expect("an entry of src").path();
        assert!(path.is_file(), "{}: modules of this crate are files; teach this test folders", path.display());
        let text = fs::read_to_string(&path).expect("a source file is text");
        defined.extend(text.lines().filter_map(struct_name).map(str::to_owned));
    }
    let named = layout::all().map(|layout| name(layout.path).to_owned());
    let known: BTreeSet<String> = named.chain(OUR_OWN.into_iter().chain([ALIGNED]).map(str::to_owned)).collect();
    assert_eq!(defined, known, "left: what src/ defines; right: what `all_shared!` names, and OUR_OWN");
}

#[test]
fn fields_lie_one_behind_the_other() {
    for layout in layout::all() {
        let mut end = 0;
        for field in layout.fields {
            assert_eq!(field.offset, end, "{}.{}", layout.path, field.name);
            end += field.size;
        }
        assert_eq!(end, layout.size, "{}: its end", layout.path);
        assert!(layout.size.is_multiple_of(layout.align), "{}", layout.path);
    }
}

/// The name that a line begins to define; macros' own `$name` is none.
fn struct_name(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("struct ")?;
    let defines = before.trim().is_empty() || before.trim().starts_with("pub");
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    (defines && end > 0).then_some(&rest[..end])
}

fn name(path: &str) -> &str {
    path.rsplit("::").next().unwrap_or(path)
}
