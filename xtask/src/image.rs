//! Container images, without a container engine: static programs of every architecture, an archive for each image, and
//! beside it what the programs are made of.
//!
//! The same commit yields the same bytes, wherever its checkout and cargo's folders lie.

mod origin;
mod sbom;

use std::{
    ffi::OsString,
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use ringfence_image::{
    Architecture, Blob, Layout, Variant,
    shipped::{self, Origin, Shipped},
};

use crate::{
    Refusal,
    architecture::{Arch, build_for},
    places, process,
    setup::{self, Purpose},
};

/// Arguments of `cargo xtask image`.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask image --registry registry.internal:5000 --tag 0.1.0\n\n\
                        A node's containerd takes an archive by `ctr -n k8s.io images import`, a registry by \
                        `skopeo copy --all` or `crane push`.")]
pub struct Arguments {
    /// Only this architecture; may be repeated. Default: all.
    #[arg(long, value_enum, value_name = "ARCH")]
    arch: Vec<Arch>,
    /// The registry that the images are named after, as in the chart's value `image.registry`.
    #[arg(long, default_value = "localhost")]
    registry: String,
    /// Their tag, as in `image.tag`. Default: the version, as in the chart.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// Folder for the archives. Default: `images` in cargo's target folder.
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// `cargo xtask image`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    check(&arguments.registry, &arguments.tag)?;
    setup::ensure(&[Purpose::Build, Purpose::Image])?;
    let mut architectures: Vec<Architecture> = arguments.arch.iter().copied().map(Architecture::from).collect();
    if architectures.is_empty() {
        architectures = Architecture::ALL.to_vec();
    }
    architectures.sort_unstable();
    architectures.dedup();
    let output = arguments.output.clone().unwrap_or_else(|| places::target().join("images"));
    fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;

    let origin = origin::find()?;
    let built: Vec<_> = architectures
        .iter()
        .map(|&architecture| Ok((architecture, build(architecture)?, sbom::of_crates(architecture)?)))
        .collect::<Result<_>>()?;
    for image in shipped::ALL {
        let name = image.reference(&arguments.registry, &arguments.tag);
        let variants = built
            .iter()
            .map(|(architecture, programs, sboms)| variant(&image, *architecture, programs, sboms, &origin))
            .collect::<Result<Vec<_>>>()?;
        for variant in &variants {
            for (file, blob) in &variant.attached {
                fs::write(output.join(file), blob.bytes.as_slice())?;
            }
        }
        let mut layout = Layout::default();
        let digest = layout.index(&name, &image.labels(&origin), &variants);
        let path = output.join(format!("{}.tar", image.name));
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        layout.write(BufWriter::new(file)).with_context(|| path.display().to_string())?;
        println!("{name}@{digest}\n    {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn variant(
    image: &Shipped,
    architecture: Architecture,
    programs: &Path,
    sboms: &sbom::Sboms,
    origin: &Origin,
) -> Result<Variant> {
    let attached = image.programs.iter().map(|(_, package)| {
        let sbom = sboms.get(*package).with_context(|| format!("cargo-cyclonedx said nothing of {package}"))?;
        Ok((format!("{package}-{architecture}.cdx.json"), Blob::new(sbom::MEDIA_TYPE, sbom.clone())))
    });
    let attached = attached.collect::<Result<_>>()?;
    Ok(Variant { architecture, image: image.build(programs, architecture, origin)?, attached })
}

/// The static programs of an architecture; returns the folder with them.
fn build(architecture: Architecture) -> Result<PathBuf> {
    // Apart from what is built without these flags: neither would find the other's fresh.
    let folder = places::target().join("image");
    let mut cargo = places::cargo();
    cargo.args(["build", "--release", "--locked", "--target-dir"]).arg(&folder);
    build_for(&mut cargo, architecture);
    let packages = shipped::ALL.iter().flat_map(|image| image.programs).map(|(_, package)| *package);
    cargo.args(packages.flat_map(|package| ["--package", package]));
    println!("==> {}", process::line(&cargo));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", paths_of_no_machine(&folder)?).env_remove("RUSTFLAGS");
    process::succeed(&mut cargo)?;
    Ok(folder.join(architecture.target()).join("release"))
}

/// Flags for rustc: programs tell of their sources in panics, and should not tell where those lay.
fn paths_of_no_machine(target: &Path) -> Result<OsString> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    let sysroot = process::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let (sysroot, workspace) = (Path::new(sysroot.trim()), places::workspace());
    let mut flags = OsString::new();
    // The last one that fits counts: a target folder may lie in the workspace.
    for (from, to) in [(home.as_path(), "/cargo"), (sysroot, "/rust"), (&workspace, "/ringfence"), (target, "/target")]
    {
        if !flags.is_empty() {
            flags.push("\x1f");
        }
        flags.push("--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    Ok(flags)
}

/// Refuses what is no reference of an image.
fn check(registry: &str, tag: &str) -> Result<()> {
    let allowed = |text: &str, more: &[u8]| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
    };
    if !allowed(registry, b".-_:/") || registry.ends_with(['/', ':']) {
        return Err(Refusal(format!("--registry {registry}: write it as registry.internal:5000 or host/path")).into());
    }
    if !allowed(tag, b".-_") || tag.len() > 128 {
        return Err(Refusal(format!("--tag {tag}: letters, digits and '.', '-', '_', at most 128")).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_checked() {
        for (registry, tag) in [("localhost", "0.1.0"), ("registry.internal:5000", "test"), ("host/path", "1_a-b.c")] {
            check(registry, tag).expect("it is right");
        }
        for (registry, tag) in [("", "1"), ("host/", "1"), ("https://host ", "1"), ("host", ""), ("host", "a:b")] {
            check(registry, tag).expect_err("it is wrong");
        }
    }
}
