//! Lists the files of the catalogue, so that adding a rule is adding a file.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=catalogue");
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("catalogue");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .expect("the folder `catalogue` is part of the crate")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    names.sort();
    let mut list = format!("const FILES: [(&str, &str); {}] = [\n", names.len());
    for name in names {
        // Not the path of this build: a target directory may serve several checkouts.
        let path = format!(r#"concat!(env!("CARGO_MANIFEST_DIR"), "/catalogue/{name}")"#);
        writeln!(list, "    ({name:?}, include_str!({path})),").expect("writing to a string does not fail");
    }
    list.push_str("];\n");
    let out = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("catalogue.rs");
    fs::write(out, list).expect("OUT_DIR can be written to");
}
